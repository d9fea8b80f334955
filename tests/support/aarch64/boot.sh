#!/bin/sh
# Pid 1 of a device, in user, mount, uts and pid namespaces of its own: puts its disk together, lets the kernel start
# aarch64 programs by qemu in this namespace only, and starts the host's sshd inside. It ends when its standard input is
# closed, and everything on the device ends with it.
# ROOT: shared root folder; STATE: folder of this device (upper, work, sys, cpuinfo, host); DISK: size of a disk in memory
# that takes the place of upper, or empty; FLAGS: of binfmt_misc for the program host/aarch64.
set -eu
D=/mnt
mount --make-rprivate /
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
hostname board
if [ -n "$DISK" ]; then
    mkdir -p "$STATE/disk"
    mount -t tmpfs -o "size=$DISK" tmpfs "$STATE/disk"
    mkdir "$STATE/disk/upper" "$STATE/disk/work"
    cp -a "$STATE/upper/." "$STATE/disk/upper"
    set -- "$STATE/disk/upper" "$STATE/disk/work"
else
    set -- "$STATE/upper" "$STATE/work"
fi
mount -t overlay overlay -o "lowerdir=$ROOT,upperdir=$1,workdir=$2,userxattr" $D
mount -t proc proc $D/proc
mount --bind "$STATE/cpuinfo" $D/proc/cpuinfo # of an x86 one the runtimes' cpuinfo library dies
mount --bind "$STATE/sys" $D/sys
mount --rbind /dev $D/dev
mount -t tmpfs tmpfs $D/dev/shm
mount -t tmpfs tmpfs $D/run
mount -t tmpfs tmpfs $D/lib64
mkdir $D/run/host $D/run/sshd
mount --bind "$STATE/host" $D/run/host
cp -P "$STATE"/host/ld-linux-x86-64.so.* $D/lib64
# The header of a 64-bit little-endian ELF file, executable or shared object, for machine 183.
printf '%s' ':aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:'"$D/run/host/aarch64:$FLAGS" \
    >/proc/sys/fs/binfmt_misc/register
# sshd separates privileges only where it is not uid 0.
LD_LIBRARY_PATH=/run/host unshare -U --map-user=1000 --map-group=1000 -R $D /run/host/sshd -D -e -f /run/host/sshd_config &
cat >/dev/null # reaps orphans too
