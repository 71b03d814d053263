gdb -nx -batch -ex 'python import ctypes, json, gdb; print(json.dumps([6 * 7, ctypes.CDLL(None).abs(-3)]))' \
    -ex 'python import threading; t = threading.Thread(target=print, args=("a thread",)); t.start(); t.join()' \
    -ex 'info files' /bin/true
