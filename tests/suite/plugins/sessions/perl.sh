perl - <<'END'
use strict; use DBI; use POSIX (); use Socket; use Encode;
my $db = DBI->connect("dbi:SQLite:dbname=x.db", "", "", { RaiseError => 1 });
$db->do("create table t (a int, b text)");
$db->do("insert into t values (?, ?)", undef, $_, "row$_") for 1 .. 50;
$db->sqlite_create_function("twice", 1, sub { 2 * $_[0] });
print "@$_\n" for @{ $db->selectall_arrayref("select sum(a), count(*), max(b), twice(21) from t") };
eval { $db->do("no sql at all") };
print "error: $@";
print encode("UTF-16BE", "x"), POSIX::strtol("77", 8), "\n";
END
