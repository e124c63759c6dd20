# A disk is taken from the guest kernel's driver and used by our frontend, while another disk of the guest stays.
# limit: 150

make_image own.img 32M
make_image lent.img 32M
start_daemon
create one disk="$(served_by_us own.img xvda)" disk="$(served_by_us lent.img xvdb)"
run one 'echo vbd-51728 >/sys/bus/xen/drivers/vbd/unbind'
within 10 run one '! test -e /dev/xvdb'
# With the thousand pages that a guest's programs may grant unless they are allowed more.
equal 'what our frontend reads' "$(run one 'blkfront --device xvdb read 2>/dev/null | md5sum | cut -d" " -f1')" "$(md5_of lent.img)"
fails run one 'blkfront --device xvdb bench --depth 64 --bs 1M --count 1 2>&1 | tee /tmp/said; test ${PIPESTATUS[0]} -eq 0'
run one 'grep "hint: all programs together may grant 1024 pages" /tmp/said'
run one 'echo taken | blkfront --device xvdb write --offset 1048576'
# Linux' driver does not take a disk again that it has let go: the tool stack gives it a new one.
xl block-detach one xvdb
xl block-attach one "$(served_by_us lent.img xvdb)"
within 10 run one 'test -b /dev/xvdb'
equal 'what the kernel reads' "$(run one 'dd if=/dev/xvdb bs=1M skip=1 count=1 status=none | head -c 5')" taken
carries one xvda own.img
no_kernel_complaint one
shut_down one
nothing_left
stop_daemon
