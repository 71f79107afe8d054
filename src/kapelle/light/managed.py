"""contextlib.contextmanager without what contextlib loads (6 ms with functools and collections)."""

from __future__ import annotations

from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import contextmanager as contextmanager
else:

    class _Managed:
        """A generator with one yield, as a context manager (contextlib's rules)."""

        __slots__ = ("_steps",)

        def __init__(self, steps):
            self._steps = steps

        def __enter__(self):
            return next(self._steps)

        def __exit__(self, kind, error, trace):
            if error is None:
                for _ in self._steps:
                    raise RuntimeError("generator didn't stop")
                return False
            try:
                self._steps.throw(error)
            except BaseException as e:
                if e is error or (isinstance(error, StopIteration) and e.__cause__ is error):
                    return False
                if isinstance(e, StopIteration):  # it has dealt with it
                    return True
                raise
            raise RuntimeError("generator didn't stop after throw()")

    def contextmanager(make):
        def managed(*args, **named):
            return _Managed(make(*args, **named))

        managed.__name__, managed.__doc__ = make.__name__, make.__doc__
        return managed
