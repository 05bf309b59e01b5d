"""Experiments on the laboratory itself: does it keep, find and refuse what it says it does?"""
"""Experiments on the laboratory itself: how often is it wrong, what fools it, what does it lose?"""
