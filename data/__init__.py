"""What a review and a label are, where labels come from, and whether they are fit."""
