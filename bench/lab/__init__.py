"""Experiments on the laboratory itself: does it keep, find and refuse what it says it does?"""
