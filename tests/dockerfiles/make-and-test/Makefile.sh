set -e
case $1 in
  all) mkdir -p out; printf '#!/bin/sh\necho "app of %s, $(cat /passed)"\n' "$(cat main.txt)" > out/app; chmod 755 out/app;;
  test) test -x out/app;;
esac
