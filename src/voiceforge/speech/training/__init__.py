"""Measuring models (and later tuning them): manifests in, error rates and reports out.

Needs the optional dependencies `voiceforge[bench]`; importing the room does not.
"""
