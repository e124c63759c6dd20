//! `ceph.conf` of a cluster that is small, quick, and keeps to its own directory.

use std::path::Path;

use super::{Auth, Programs};

/// The OSD's file, in bytes. It is sparse.
const STORE: u64 = 2 << 30;

/// The text for a cluster in `dir` whose one monitor listens at `monitor`.
pub(super) fn text(dir: &Path, programs: &Programs, fsid: &str, monitor: &str, auth: Auth) -> String {
    let (dir, libraries) = (dir.display(), programs.libraries());
    let libraries = libraries.display();
    let auth = match auth {
        Auth::None => "none",
        Auth::Cephx => "cephx",
    };
    format!(
        "\
[global]
fsid = {fsid}
mon host = {monitor}
ms bind msgr1 = false
ms bind ipv6 = false
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = {auth}
auth service required = {auth}
auth client required = {auth}
auth allow insecure global id reclaim = false
keyring = {dir}/keyring
run dir = {dir}/run
crash dir = {dir}/log
log file = {dir}/log/$name.log
mon cluster log file = {dir}/log/cluster.log
# A cluster of one.
osd pool default size = 1
osd pool default min size = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
mon osd min down reporters = 1
# The host's disk may be nearly full.
mon data avail warn = 2
mon data avail crit = 1
# Packages that were unpacked, not installed.
osd class dir = {libraries}/rados-classes
erasure code dir = {libraries}/ceph/erasure-code
plugin dir = {libraries}/ceph

[mon]
admin socket = {dir}/run/mon.asok
mon data = {dir}/mon
# Decisions at once: nobody has to be waited for.
paxos propose interval = 0.05
paxos min wait = 0.01

[osd]
admin socket = {dir}/run/osd.asok
osd data = {dir}/osd
osd journal = {dir}/osd/journal
osd class load list = rbd lock refcount
osd class default list = rbd lock refcount
osd objectstore = bluestore
bluestore block size = {STORE}
bluestore fsck on mount = false
# A few hundred megabytes of memory instead of gigabytes.
bluestore cache autotune = false
bluestore cache size = 67108864
bluestore rocksdb options = compression=kNoCompression,write_buffer_size=16777216,max_write_buffer_number=4
osd memory target = 939524096
osd min pg log entries = 50
osd max pg log entries = 100
osd pg log dups tracked = 100
osd op num shards = 2
osd op num threads per shard = 2

[client]
log file = {dir}/log/client.log
mon client hunt interval = 0.2
# As the daemon has it: what was acknowledged outlasts the client.
rbd cache = false
"
    )
}
