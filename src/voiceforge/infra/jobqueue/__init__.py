"""Who is told that there is work; the database remains the truth about it."""
