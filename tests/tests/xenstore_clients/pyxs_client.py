"""What pyxs does against the simulated xenstored, one function a case; see pyxs.rs."""

import errno
import os
import sys
import threading

from pyxs import Client, PyXSError


def refused(expected, call, *arguments):
    try:
        call(*arguments)
    except PyXSError as error:
        assert error.args[0] == expected, error
    else:
        raise AssertionError(f"{call.__name__}{arguments} succeeded")


def nodes():
    with Client() as c:
        c[b"/py/a/deep"] = b"1"
        c[b"/py/b"] = b"2"
        assert c[b"/py/a/deep"] == b"1"
        assert c.list(b"/py") == [b"a", b"b"]
        c.mkdir(b"/py/a")
        c.mkdir(b"/py/made")
        assert c.exists(b"/py/made") and not c.exists(b"/py/nope")
        assert c.read(b"/py/nope", b"default") == b"default"
        refused(errno.ENOENT, c.read, b"/py/nope")
        refused(errno.ENOENT, c.delete, b"/py/nope/deeper")
        refused(errno.EINVAL, c.delete, b"/")
        del c[b"/py/a"]
        assert [top for top, _, _ in c.walk(b"/py")] == [b"/py", b"/py/b", b"/py/made"]
        refused(errno.E2BIG, list_too_much, c)


def list_too_much(c):
    for node in range(500):
        c.mkdir(b"/py/big/a-rather-long-name-%d" % node)
    c.list(b"/py/big")


def permissions():
    with Client() as c:
        c[b"/py/shared"] = b"x"
        c[b"/py/private"] = b"x"
        assert c.get_perms(b"/py/shared") == [b"n0"]
        c.set_perms(b"/py/shared", [b"n0", b"r7", b"b3"])
        assert c.get_perms(b"/py/shared") == [b"n0", b"r7", b"b3"]


def transactions():
    with Client() as c:
        c.transaction()
        c[b"/py/gone"] = b"1"
        c.rollback()
        assert not c.exists(b"/py/gone")

    with Client() as mine, Client() as theirs:
        mine[b"/py/counter"] = b"0"
        mine.transaction()
        mine[b"/py/counter"] = mine[b"/py/counter"] + b"1"
        assert theirs[b"/py/counter"] == b"0"
        theirs[b"/py/counter"] = b"0"
        assert mine.commit() is False
        refused(errno.ENOENT, with_transaction, mine, 4711)

    def count():
        with Client() as c:
            for _ in range(25):
                while True:
                    c.transaction()
                    c[b"/py/counter"] = b"%d" % (int(c[b"/py/counter"]) + 1)
                    if c.commit():
                        break

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def with_transaction(c, tx_id):
    c.tx_id = tx_id
    try:
        c.read(b"/py/counter")
    finally:
        c.tx_id = 0


def watches():
    with Client() as c, Client() as other:
        monitor = c.monitor()
        monitor.watch(b"/py", b"token")
        events = monitor.wait()
        assert next(events) == (b"/py", b"token")
        other[b"/py/state"] = b"1"
        assert next(events) == (b"/py/state", b"token")
        refused(errno.EEXIST, monitor.watch, b"/py", b"token")
        monitor.unwatch(b"/py", b"token")
        refused(errno.ENOENT, monitor.unwatch, b"/py", b"token")

        monitor.watch(b"@introduceDomain", b"domains")
        assert next(monitor.wait(unwatched=True)).token == b"domains"
        other.introduce_domain(5, 1, 1)
        assert next(monitor.wait(unwatched=True)) == (b"@introduceDomain", b"domains")


def domains():
    with Client() as c:
        assert c.get_domain_path(9) == b"/local/domain/9"
        assert c.is_domain_introduced(9) is False
        c.introduce_domain(9, 1234, 5)
        assert c.is_domain_introduced(9) is True
        assert c.is_domain_introduced(0) is True


case = sys.argv[1]
globals()[case]()
print(case, "ok", flush=True)
# pyxs' background threads are not this test's matter.
os._exit(0)
