PYTHONPATH=$NUMPY "$PYTHON" - <<'END'
import threading
import numpy as np
generator = np.random.default_rng(7)
a = generator.random((200, 200))
print(np.allclose(a @ np.linalg.inv(a), np.eye(200)), np.round(np.linalg.svd(a)[1][:3], 6))
print(np.round(np.abs(np.fft.fft(a[0]))[:3], 6), np.sort(generator.integers(0, 1000, 5)))
sums = [None] * 4
def work(i): sums[i] = float((a @ a * i).sum())
threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
print([round(s, 3) for s in sums])
END
