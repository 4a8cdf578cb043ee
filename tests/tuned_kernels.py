"""Kernels under Triton's own autotuner that launch nothing, so that it can choose where there is no GPU."""


class Kernel:
    """What Triton takes for a kernel of one argument `n`; `launches` are the keywords of each launch."""

    arg_names = ("n",)

    def __init__(self, name):
        self.__name__ = name
        self.launches = []

        def fn(n):
            pass

        self.fn = fn

    def run(self, *args, **keywords):
        self.launches.append(keywords)


def tuned(name, blocks, wrap=lambda kernel: kernel):
    """The autotuner of a kernel that is fastest where BLOCK_M is nearest to `n`; `wrap` is what stands between."""
    import triton

    kernel = Kernel(name)

    def bench(call, quantiles):
        call()
        launch = kernel.launches[-1]
        return [abs(launch["n"] - launch["BLOCK_M"])] * 3

    configs = [triton.Config({"BLOCK_M": block}, num_warps=8, num_stages=2) for block in blocks]
    wrapped = wrap(kernel)
    # Not triton.autotune: that of triton 3.2 takes a do_bench and drops it
    return triton.runtime.Autotuner(wrapped, wrapped.arg_names, configs, ["n"], None, None, do_bench=bench)
