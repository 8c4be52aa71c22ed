"""The main module of a process that a program started afresh.

multiprocessing runs this file under the name ``__mp_main__``.
"""
import runpy

if __name__ == '__mp_main__':
    # The import of the package mends Chainer.
    from shared_linear.stack import old_names, workers

    _told = workers.program()
    if _told['give_old_names']:
        old_names.give_back()
    if _told['module'] is None:
        _contents = runpy.run_path(_told['path'], run_name=__name__)
    elif _told['module'].rpartition('.')[2] == '__main__':
        # As multiprocessing has it: what is there is guarded by no "if".
        _contents = {}
    else:
        _contents = runpy.run_module(
            _told['module'], run_name=__name__, alter_sys=True)
    globals().update({
        name: value for name, value in _contents.items()
        # Those of this file stay: by them processes of this process find it.
        if name not in ('__file__', '__spec__', '__loader__', '__package__')})
