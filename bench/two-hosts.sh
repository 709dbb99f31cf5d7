#!/bin/sh
# Two hosts in one: network namespaces joined by a virtual cable, optionally as slow as a real one, with MPI over TCP.
# Usage (as root): bench/two-hosts.sh RATE RANKS COMMAND...   RATE: as tc writes it (1gbit), or - for as fast as it goes.
# The first half of the ranks is on one host; with PLACE=turns, ranks are dealt out to the two hosts in turn.
# Whatever happens, namespaces are removed at the end.
set -eu
[ $# -ge 3 ] || { sed -n '2,5s/^# //p' "$0"; exit 2; }
[ "$(id -u)" = 0 ] || { echo 'error: network namespaces need root' >&2; exit 1; }
rate=$1 ranks=$2 each=$((($2 + 1) / 2))
shift 2
by=slot
[ "${PLACE:-blocks}" = blocks ] || by=node
a=anneal-a-$$ b=anneal-b-$$
half=$(($(nproc) / 2))
[ "$half" -gt 0 ] && first=0-$((half - 1)) last=$half-$((2 * half - 1)) || first=0 last=0
agent=$(mktemp)
clean() { ip netns del "$a" 2>/dev/null || :; ip netns del "$b" 2>/dev/null || :; rm -f "$agent"; }
trap clean EXIT INT TERM
ip netns add "$a"
ip netns add "$b"
ip link add cable netns "$a" type veth peer name cable netns "$b"
for end in "$a 10.77.0.1" "$b 10.77.0.2"; do
  set -- $end "$@"
  ip -n "$1" addr add "$2/24" dev cable
  ip -n "$1" link set cable mtu 9000 up
  ip -n "$1" link set lo up
  ip -n "$1" route replace 10.77.0.0/24 dev cable src "$2" congctl cubic
  # Packets as they travel: what the kernel lumps together would keep acknowledgements waiting behind it.
  ip -n "$1" link set cable gso_max_size 9000 gso_max_segs 1
  # A small bucket: a wire has none, and what is left in it would go for free after every pause.
  [ "$rate" = - ] || ip netns exec "$1" tc qdisc add dev cable root tbf rate "$rate" burst 64kb latency 50ms
  shift 2
done
# What MPI calls instead of ssh: HOST COMMAND...; the other host is the other namespace, with a name of its own.
cat > "$agent" <<AGENT
#!/bin/sh
shift
exec taskset -c $last ip netns exec $b unshare --uts sh -c 'hostname anneal-b; exec sh -c "\$*"' sh "\$@"
AGENT
chmod +x "$agent"
# Of two ways that Open MPI has for large messages the plain one (btl_tcp_flags 1): the other asks for every piece, and those
# requests wait behind the data that goes the same way, so that the cable runs now at its rate and now at half of it.
# Each host has half of the cores. Ranks may be more than that, so whoever waits makes room for the others.
taskset -c "$first" ip netns exec "$a" mpirun --allow-run-as-root --oversubscribe --bind-to none --host "10.77.0.1:$each,10.77.0.2:$each" \
  --map-by "$by" -n "$ranks" --mca plm_rsh_agent "$agent" --mca btl tcp,vader,self --mca pml ob1 --mca btl_tcp_if_include cable \
  --mca oob_tcp_if_include cable --mca mpi_yield_when_idle 1 --mca btl_tcp_flags 1 --mca btl_tcp_sndbuf 262144 --mca btl_tcp_rcvbuf 262144 "$@"
