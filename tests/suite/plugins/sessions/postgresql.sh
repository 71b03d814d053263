# Not as root: initdb refuses.
bin=$(echo /usr/lib/postgresql/*/bin | cut -d' ' -f1)
as=
if [ "$(id -u)" = 0 ]; then as="runuser -u nobody --"; chown nobody . && chmod 755 .; fi
$as "$bin/initdb" -D "$PWD/pg" --no-locale -E UTF8 -U somebody -N >initdb.log 2>&1 || cat initdb.log
$as "$bin/pg_ctl" -s -w -D "$PWD/pg" -o "-k $SOCKETS -c listen_addresses='' -c fsync=off" -l "$PWD/pg/log" start
query() { $as psql -h "$SOCKETS" -U somebody -d postgres -At "$@"; }
query -c 'create extension pgcrypto' -c 'create extension hstore' \
    -c "select encode(digest('x', 'sha1'), 'hex'), 'a=>1'::hstore -> 'a'"
query -c 'create table t as select generate_series(1, 100000) n' -c 'set max_parallel_workers_per_gather = 2' \
    -c 'set parallel_setup_cost = 0' -c 'select sum(n) from t'
query -c "create function twice(n int) returns int language plpgsql as 'begin return n * 2; end'" -c 'select twice(21)'
query -c 'set jit = on' -c 'set jit_above_cost = 0' -c 'select count(*) from t where n % 3 = 0'
query -c "create function f() returns int language c as '/nowhere', 'f'" 2>&1
$as "$bin/pg_ctl" -s -w -m fast -D "$PWD/pg" stop
grep -E 'PANIC|terminated by signal' pg/log || echo "nothing in the log"
