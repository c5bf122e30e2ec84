"""Python runs this at start-up, as `greend run` puts its folder first on PYTHONPATH.

No torch is imported for a process that does not: a finder waits for `torch.optim.optimizer`. It is a finder
by its methods alone, since importing `importlib.abc` costs each Python process of the job 26 ms.
"""

import os
import sys


class _Finder:
    def find_spec(self, name, path=None, target=None):
        if name != "torch.optim.optimizer":
            return None
        sys.meta_path.remove(self)
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_watch(module):
                run(module)
                _watch(module)

            spec.loader.exec_module = run_and_watch
        return spec


def _watch(optimizers):
    waiting = [True]

    # It stays registered: a hook that removes itself changes the dictionary that torch is walking.
    def first_step(optimizer, args, kwargs):
        if waiting and not optimizers.torch.compiler.is_compiling():
            waiting.clear()
            try:
                from greend_agent import discover
            except Exception as error:
                sys.stderr.write(f"greend: the agent is not in this Python: {error}\n")
            else:
                discover.watch(optimizer)

    optimizers.register_optimizer_step_post_hook(first_step)


def _run_shadowed():
    from importlib.machinery import PathFinder

    here = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120 (pathlib costs each start 5 ms)
    others = [p for p in sys.path if os.path.realpath(p) != here]
    spec = PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        from importlib.util import module_from_spec

        spec.loader.exec_module(module_from_spec(spec))


if os.environ.get("GREEND_JOB_ID") and os.environ.get("GREEND_DISABLED") != "1":
    sys.meta_path.insert(0, _Finder())
_run_shadowed()
