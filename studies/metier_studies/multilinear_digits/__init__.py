"""Multilinear experts on small images: do many small experts pay, and what do they specialize in?"""
