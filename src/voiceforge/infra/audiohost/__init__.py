"""Anybody's bytes are decoded, and listened to, in processes whose death is survivable.

    keeper ─ starts ─▶ host ─ forks ─▶ members, each at one recording at a time
    pool   ─ asks the host for members, then talks with each over a socket of its own

The host has imported everything and opened nothing, so a member is there in milliseconds and shares its
memory. A file that kills a decoder kills one member, and costs its own request an error.
"""
