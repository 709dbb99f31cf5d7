#!/bin/sh
# Two hosts in one: network namespaces joined by a virtual cable, optionally as slow as a real one, with MPI over TCP.
# Usage (as root): bench/two-hosts.sh RATE RANKS COMMAND...   RATE: as tc writes it (1gbit), or - for as fast as it goes.
# Ranks are dealt out to the two hosts in turn. Whatever happens, namespaces are removed at the end.
set -eu
[ $# -ge 3 ] || { sed -n '2,4s/^# //p' "$0"; exit 2; }
[ "$(id -u)" = 0 ] || { echo 'error: network namespaces need root' >&2; exit 1; }
rate=$1 ranks=$2
shift 2
a=anneal-a-$$ b=anneal-b-$$
agent=$(mktemp)
clean() { ip netns del "$a" 2>/dev/null || :; ip netns del "$b" 2>/dev/null || :; rm -f "$agent"; }
trap clean EXIT INT TERM
ip netns add "$a"
ip netns add "$b"
ip link add cable netns "$a" type veth peer name cable netns "$b"
for end in "$a 10.77.0.1" "$b 10.77.0.2"; do
  set -- $end "$@"
  ip -n "$1" addr add "$2/24" dev cable
  ip -n "$1" link set cable up
  ip -n "$1" link set lo up
  [ "$rate" = - ] || ip netns exec "$1" tc qdisc add dev cable root tbf rate "$rate" burst 256kb latency 50ms
  shift 2
done
# What MPI calls instead of ssh: HOST COMMAND...; the other host is the other namespace, with a name of its own.
cat > "$agent" <<AGENT
#!/bin/sh
shift
exec ip netns exec $b unshare --uts sh -c 'hostname anneal-b; exec sh -c "\$*"' sh "\$@"
AGENT
chmod +x "$agent"
ip netns exec "$a" mpirun --allow-run-as-root --oversubscribe --bind-to none --host "10.77.0.1:$ranks,10.77.0.2:$ranks" --map-by node \
  -n "$ranks" --mca plm_rsh_agent "$agent" --mca btl tcp,self --mca pml ob1 --mca btl_tcp_if_include cable \
  --mca oob_tcp_if_include cable "$@"
