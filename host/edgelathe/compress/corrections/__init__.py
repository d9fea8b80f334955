"""What a compressed model answers, corrected where unseen samples agree."""
