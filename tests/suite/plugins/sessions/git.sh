export HOME=$PWD GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_DATE=2001-01-01T00:00:00Z GIT_COMMITTER_DATE=2001-01-01T00:00:00Z
git init -q -b main one && cd one && git config user.name Somebody && git config user.email somebody@example.org
for n in 1 2 3; do seq 1 "$n"00 >file && git add file && git commit -qm "Commit $n"; done
cd .. && git clone -q "file://$PWD/one" two && git -C two log --stat && git -C two gc -q && git -C two fsck --full
git -C one fast-export HEAD | git -C two fast-import --quiet --force && git -C two rev-parse HEAD
git -C one bundle create -q ../bundle main && git ls-remote bundle
git ls-remote http://127.0.0.1:1/nothing || echo "the http helper's status $?"
git -C one -c alias.x='!echo alias' x
