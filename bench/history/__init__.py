"""How a problem's times changed over commits: lines of points that may be compared, and where they step."""
