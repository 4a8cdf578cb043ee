"""Who runs when and where: one thread a device, its warm processes, the deadlines, and what is seen of each cell.

pool.py       the threads, the queue of cells, Ctrl-C
slot.py       one device: which warm process a cell gets, and what becomes of its end
attempt.py    one run of one cell: pipes, deadlines, sensors
deadlines.py  when a cell is late, by its phase and the CPU time that cputime.py reads
neighbours.py what else uses the device
warm.py       a zygote seen from the parent
ending.py     from what was seen to a status
cell_log.py, locks.py, interrupt.py, pyenv.py, scratch.py
"""

from attnsweep.pool.ending import Ending
from attnsweep.pool.pool import Pool, Queue

__all__ = ["Ending", "Pool", "Queue"]
