"""Letters to people: the seam to whatever sends e-mail here."""
