"""What every HTTP surface shares: keys, uploads, errors, request ids, observation."""
