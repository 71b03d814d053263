mkdir h logs && chmod 755 . && echo hello >h/x
user=$(id -un)
cat >conf <<END
load_module modules/ngx_http_echo_module.so;
worker_processes 2; user $user; pid logs/pid;
events {}
http {
    client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;
    server { listen unix:$PWD/s; root $PWD/h; gzip on; location /e { echo echoed; } }
}
END
ln -s /usr/lib/nginx/modules modules
run() { nginx -p "$PWD" -c "$PWD/conf" -e logs/e "$@"; }
get() { curl -s --retry 20 --retry-all-errors --retry-delay 0 --unix-socket s "http://x/$1"; }
run
get x
get e
# Each reload loads the modules anew, and the old workers end.
for _ in 1 2 3 4 5; do
    run -s reload
    for _ in $(seq 20); do get e; done | sort | uniq -c
done
run -s quit
for _ in $(seq 100); do [ -e logs/pid ] || break; sleep 0.05; done
grep -E 'emerg|alert|exited on signal' logs/e || echo "nothing in the log"
