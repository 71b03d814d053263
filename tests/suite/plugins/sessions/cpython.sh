# CPython's own tests: each test's result, in the order of names.
for suite in \
    "test_ctypes" \
    "test_importlib" \
    "test_threading -m test_various_ops* -m test_foreign_thread -m *daemon* -m *fork* -m *Subinterp*" \
    "test_multiprocessing_spawn -m *WithProcessesTestQueue.test_fork* -m *WithProcessesTestPool.test_map -m *test_shared_memory_across*"
do
    set -f
    /usr/bin/python3 -m test -v $suite >log 2>&1 || { echo "failed: $suite"; tail -50 log; }
    grep -E ' \.\.\. (ok|FAIL|ERROR|skipped)' log | sort
done
