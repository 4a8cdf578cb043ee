"""The second command: merge records, rank them, and write the answers as tables, plots and one page.

load -> labels -> aggregate -> derive -> summary | plots | html. Imports neither Hydra nor torch.
"""
