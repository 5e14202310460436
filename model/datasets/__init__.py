"""Labelled data: layouts on disk, images with their labels, and the patches that training reads from them."""
