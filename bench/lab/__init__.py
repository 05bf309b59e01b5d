"""Experiments on the laboratory itself: how often is it wrong, what fools it, what does it lose?"""
