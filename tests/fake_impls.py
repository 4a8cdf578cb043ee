"""Implementations that misbehave, each in one way: what a sweep must survive."""

import atexit
import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from attnsweep.errors import CompileError, Missing, Unsupported
from attnsweep.impls import Attention
from attnsweep.impls.masks import dense
from attnsweep.impls.naive import NaiveAttention

#: Long enough that a deadline always comes first.
FOREVER_S = 600

#: Calls after which an implementation on a CPU is being timed: it is warm, checked and weighed by then.
INTO_TIMING = 10

#: What a test turns on in the middle of a cell, to make compiled code stale.
SWITCHED = False
#: Calls of the deed that counts them, whose compiled code is for one count each.
COUNTED = 0


class Fake(NaiveAttention):
    """Naive attention that does `deed` first: in the constructor of a cell, in `prepare`, in each call, or in the
    first call that is timed, by the deed's prefix: build, do, call, timed. `marker` is a file for deeds that need one.
    """

    def __init__(self, *, deed: str, marker: str | None = None, **common):
        super().__init__(**common)
        self.deed, self.marker, self.calls = deed, marker, 0
        build = getattr(self, f"build_{deed}", None)
        # The parent builds too, to ask what is supported
        if build is not None and "ATTNSWEEP_ZYGOTE" in os.environ:
            build()

    def prepare(self, case, device):
        right = super().prepare(case, device)
        self.mask = dense(case, device)
        deed = getattr(self, f"do_{self.deed}", None)
        if deed is not None:
            deed()
            return right
        timed = getattr(self, f"timed_{self.deed}", None)
        if timed is not None:
            return lambda q, k, v: self.in_time(timed) or right(q, k, v)
        return lambda q, k, v: getattr(self, f"call_{self.deed}")(right, q, k, v)

    def in_time(self, deed):
        """Do it once, when the calls are being timed."""
        self.calls += 1
        if self.calls == INTO_TIMING:
            deed()

    def do_flag(self):
        self.flags = frozenset({"options_unread"})

    def call_ok(self, right, q, k, v):
        return right(q, k, v)

    def call_wrong(self, right, q, k, v):
        return right(q, k, v) * 1.5

    def call_not_finite(self, right, q, k, v):
        return right(q, k, v) * float("nan")

    def call_memoises(self, right, q, k, v):
        if not hasattr(self, "remembered"):
            self.remembered = right(q, k, v)
        return self.remembered

    def call_right_at_first(self, right, q, k, v):
        self.calls += 1
        return right(q, k, v) if self.calls < 8 else q

    def call_scales_q_in_place(self, right, q, k, v):
        q.mul_(0.5)
        return right(q, k, v)

    def scores(self, q, k):
        """Scaled and masked, in fp32; no grouped heads."""
        found = q.float() @ k.float().transpose(-1, -2) * q.shape[-1] ** -0.5
        return found if self.mask is None else found.masked_fill(~self.mask, float("-inf"))

    def call_overflows(self, right, q, k, v):
        # No maximum is taken away, and fp16 ends at exp(11)
        weights = self.scores(q, k).exp().half().float()
        return (weights @ v.float() / weights.sum(dim=-1, keepdim=True)).to(q.dtype)

    def call_forgets_to_rescale(self, right, q, k, v):
        # An online softmax over eight keys at a time: its maximum moves on when the scores outgrow it by 8, and what
        # was summed up before stays as it is
        maximum, total, out = None, 0, 0
        for scores, values in zip(self.scores(q, k).split(8, dim=-1), v.float().split(8, dim=-2)):
            top = scores.amax(dim=-1, keepdim=True)
            maximum = top if maximum is None else top.where(top > maximum + 8, maximum)
            weights = (scores - maximum).exp()
            total = total + weights.sum(dim=-1, keepdim=True)
            out = out + weights @ values
        return (out / total).to(q.dtype)

    def call_rounds_k_to_int8(self, right, q, k, v):
        step = k.detach().abs().amax(dim=-1, keepdim=True) / 127
        return right(q, k + ((k.detach() / step).round() * step - k.detach()), v)

    def call_two_outputs(self, right, q, k, v):
        return right(q, k, v), None

    def call_raises(self, right, q, k, v):
        raise ValueError("the kernel said [bold]no[/bold] <script>")

    def call_prints(self, right, q, k, v):
        print("from the middle of it")
        return right(q, k, v)

    def call_prints_in_a_loop(self, right, q, k, v):
        for _ in range(2):
            out = right(q, k, v)
            print("from the middle of it")
        return out

    def call_branches_on_data(self, right, q, k, v):
        return right(q, k, v) if q.sum() < 1e9 else q

    def call_follows_a_switch(self, right, q, k, v):
        return right(q, k, v) if not SWITCHED else right(q, k, v) + 0

    def call_counts_its_calls(self, right, q, k, v):
        global COUNTED
        COUNTED += 1
        return right(q, k, v) if COUNTED < 10**6 else q

    def call_by_hand(self, right, q, k, v):
        # Inductor knows no such formula, so the products stay products
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).exp()
        return weights @ v / weights.sum(dim=-1, keepdim=True)

    def call_raises_in_backward(self, right, q, k, v):
        import torch

        class Explodes(torch.autograd.Function):
            @staticmethod
            def forward(context, x):
                return x.clone()

            @staticmethod
            def backward(context, gradient):
                raise ValueError("no gradient today")

        return Explodes.apply(right(q, k, v))

    def call_autotunes(self, right, q, k, v):
        from tuned_kernels import tuned

        if not hasattr(self, "kernel"):
            self.kernel = tuned("_fwd", (16, 32, 128))
        self.kernel.run(n=q.shape[2] + 4)
        return right(q, k, v)

    def call_autotunes_to_a_wrong_one(self, right, q, k, v):
        return self.call_autotunes(right, q, k, v) * 1.5

    def call_forges(self, right, q, k, v):
        print('\n{"token": "guessed", "outcome": {"status": "ok", "columns": {"latency_ms": 0.001}}}', flush=True)
        return right(q, k, v) * 1.5

    def call_surrogates(self, right, q, k, v):
        raise ValueError("half a character: \ud800, a null: \0")

    def build_fails_to_build(self):
        raise ValueError("no such tile")

    def timed_raises_in_timing(self):
        raise ValueError("one call too many")

    def timed_segfault_in_timing(self):
        ctypes.string_at(0)

    def timed_abort(self):
        os.abort()

    def timed_exit_0(self):
        os._exit(0)

    def timed_shot(self):
        """Waits for somebody else's signal, of which the file then says nothing more."""
        Path(self.marker).write_text(str(os.getpid()))
        time.sleep(FOREVER_S)

    def timed_shot_once(self):
        if not Path(self.marker).exists():
            self.timed_shot()

    def timed_stops(self):
        os.kill(os.getpid(), signal.SIGSTOP)

    def timed_closes_everything(self):
        os.closerange(0, 4096)

    def do_raises_in_prepare(self):
        raise ValueError("no plan for this shape")

    def do_system_exit_in_a_thread(self):
        thread = threading.Thread(target=sys.exit, args=(3,))
        thread.start()
        thread.join()

    def do_hang_in_c(self):
        """Waits in the kernel, holding the GIL, for a pipe to which nobody writes; SIGTERM is ignored."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        read, _ = os.pipe()
        ctypes.PyDLL(None).read(read, ctypes.create_string_buffer(1), 1)

    def do_never_exits(self):
        atexit.register(time.sleep, FOREVER_S)
        threading.Thread(target=time.sleep, args=(FOREVER_S,), daemon=False).start()

    def do_leaks(self):
        """Takes memory until Python gets no more of it."""
        limit_memory()
        kept = []
        while True:
            kept.append(bytearray(2**24))

    def do_eats_what_there_is(self):
        import torch

        limit_memory()
        torch.ones(2**31, dtype=torch.uint8)

    def do_upheaval(self):
        """Changes what a process has of its own."""
        os.chdir("/")
        os.umask(0o777)
        os.environ.clear()
        os.environ["PYTHONPATH"] = "/nowhere"
        sys.path.clear()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    def do_missing(self):
        raise Missing("no such library; install it with: pip install nothing")

    def do_unsupported(self):
        raise Unsupported("only on Sundays")

    def do_compile_error(self):
        raise CompileError("nvcc was not amused")

    def do_memory_error(self):
        raise MemoryError("not that much")

    def do_system_exit(self):
        sys.exit(3)

    def do_segfault(self):
        ctypes.string_at(0)

    def do_hang(self):
        time.sleep(FOREVER_S)

    def do_eat_memory(self):
        import torch

        torch.ones(2**50, dtype=torch.uint8)

    def do_flood_stderr(self):
        line = b"x" * 1023 + b"\n"
        for _ in range(64 * 1024):
            os.write(2, line)

    def do_os_exit(self):
        os._exit(7)

    def do_grandchild(self):
        subprocess.Popen(
            [sys.executable, "-c", f"import time; time.sleep({FOREVER_S})"],
            start_new_session=True,
            close_fds=False,
        )


def limit_memory():
    """Leave this process 256 MiB of address space beside what it has."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + 2**28, now + 2**28))


class NeedsFlag(Attention):
    """An implementation with a required and an optional keyword of its own."""

    def __init__(self, *, flag: int, block_q: int = 64, **common):
        super().__init__(**common)
        self.flag, self.block_q = flag, block_q

    def prepare(self, case, device):
        return lambda q, k, v: q
