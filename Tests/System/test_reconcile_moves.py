"""Moves of groups from shard to shard, exactly, by the command line and by serve, between real Pushgateways.

Every push goes to a single Pushgateway as well, the oracle. A push straight to a shard that does not own its group
stands for a change of the ring.
"""

import base64
import time
import urllib.parse

import pytest
from harness import protobuf, scrape
from harness.cluster import Cluster
from harness.http import ask
from harness.net import wait_until
from harness.pushgateway import NEWEST
from harness.reconcile import OFTEN, is_reconciled_since, misplacements, reconcile, wait_reconciled


def encoded(text):
    return urllib.parse.quote(text, safe="")


def in_base64(text):
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=") or "="


# Of "secret word", at the least cost that bcrypt has.
SECRET_WORD_BCRYPT = "$2b$04$1EZ7xoTsZqCZh3pKWP4DkOUReFhv1zxuJlaAGtGFY6oqj4gMJyR4a"
PATHS = [
    "/metrics/job/plain",
    "/metrics/job/plain/instance/i1",
    "/metrics/job/two/b/2/a/1",
    f"/metrics/job@base64/{in_base64('/var/tmp')}/dir@base64/{in_base64('a//b')}",
    # Two groups, though the ring takes an empty label and none for the same.
    "/metrics/job/empty",
    "/metrics/job/empty/z@base64/=",
    "/metrics/job/odd/name/" + encoded('"quoted" back\\slash\nnew line\ttab é 日本 😀'),
    f"/metrics/job/dots/one@base64/{in_base64('.')}/two@base64/{in_base64('..')}",
    "/metrics/job/50%25%2B+/query/" + encoded("a=b&c#d?e;f,g{h}"),
    "/metrics/job/" + "long" * 100,
    "/metrics/job/%20space%20/_x/U__a",
]

TEXT = r"""
# HELP t_counter A \\ backslash, a\nnew line and "quotes", é 😀.
# TYPE t_counter counter
t_counter{k="q\"\\\n é 😀",l=""} 0.1
t_counter{k=""} 12345678901234567
t_counter{k="given",instance="given"} 3
# TYPE t_gauge gauge
t_gauge{is="nan"} NaN
t_gauge{is="plus"} +Inf
t_gauge{is="minus"} -Inf
t_gauge{is="minus zero"} -0
t_gauge{is="zero"} 0
t_gauge{is="17 digits"} 0.30000000000000004
t_gauge{is="large"} 1e300
t_gauge{is="largest"} 1.7976931348623157e308
t_gauge{is="smallest"} 5e-324
t_gauge{is="subnormal"} 2.2250738585072011e-308
t_gauge{is="third"} -0.3333333333333333
# HELP t_help_alone
t_help_alone 4
t_no_type{le="5",quantile="x"} 7
# HELP t_untyped Untyped.
# TYPE t_untyped untyped
t_untyped 1.5
# HELP t_histogram A histogram.
# TYPE t_histogram histogram
t_histogram_bucket{path="/a",le="0.005"} 1
t_histogram_bucket{path="/a",le="2.5e+06"} 3
t_histogram_bucket{path="/a",le="+Inf"} 9007199254740992
t_histogram_sum{path="/a"} 0.30000000000000004
t_histogram_count{path="/a"} 9007199254740992
t_histogram_bucket{path="/\"b\"",le="+Inf"} 0
t_histogram_sum{path="/\"b\""} NaN
t_histogram_count{path="/\"b\""} 0
# HELP t_summary A summary.
# TYPE t_summary summary
t_summary{quantile="0.5"} NaN
t_summary{quantile="0.99"} 1e-9
t_summary_sum -Inf
t_summary_count 3
# TYPE t_summary_bare summary
t_summary_bare_sum 5
t_summary_bare_count 2
# TYPE t_plain_sum gauge
t_plain_sum 1
t_plain_count 2
""".lstrip().encode()

# Counts that no float holds, a label order that is nobody's, and what the text format completes.
PROTOBUF = b"".join(
    [
        protobuf.family("p_counter", "COUNTER", [({"z": "1", "k": "2"}, protobuf.simple(1e15 + 0.3))], "Help\n\\n."),
        protobuf.family("p_no_help", "GAUGE", [({}, protobuf.simple(-0.0))]),
        protobuf.family("p_empty_help", "UNTYPED", [({"e": ""}, protobuf.simple(2))], ""),
        protobuf.family(
            "p_histogram",
            "HISTOGRAM",
            [
                ({"is": "large"}, protobuf.histogram(2**53 + 1, 1e300, [(0.1, 2**53 - 1), (float("inf"), 2**53 + 1)])),
                ({"is": "largest"}, protobuf.histogram(2**64 - 1, 0, [(1, 2**64 - 1)])),
                ({"is": "negative"}, protobuf.histogram(3, -5, [(-2.5, 1), (0, 2)])),
            ],
        ),
        protobuf.family("p_summary", "SUMMARY", [({}, protobuf.summary(2**64 - 1, 0.1, [(0, 1), (1, float("nan"))]))]),
    ]
)


@pytest.fixture(params=["installed", "newest", "unchecked"])
def options(request):
    """Of the Pushgateways: 1.5, 1.11, or 1.5 without its consistency check, where a push is answered before it is stored."""
    if request.param == "newest":
        return {"arguments": (), "program": NEWEST}
    return {"arguments": ("--push.disable-consistency-check",) if request.param == "unchecked" else ()}


class Setup:
    """Shards, the oracle, and the file of a replica that does not run."""

    def __init__(self, lab, count=3, arguments=(), **options):
        self.shards = lab.pushgateways(count, *arguments, **options)
        self.oracle = lab.pushgateway(*arguments, **options)
        self.replica = lab.shardd(self.shards, start=False)

    def push(self, gateway, path, body, headers=(), method="POST", statuses=(200, 202)):
        for target in (gateway, self.oracle):
            answer = ask(target.address, method, path, body, headers)
            assert answer.status in statuses, (path, answer)

    def misplace(self, paths):
        """Pushes to each path on a shard that does not own it; text or protobuf, in turn."""
        found = misplacements(self.replica, self.shards, paths)
        for number, (path, (wrong, _)) in enumerate(found.items()):
            if number % 2:
                self.push(wrong, path, PROTOBUF, [("Content-Type", protobuf.CONTENT_TYPE)])
            else:
                self.push(wrong, path, TEXT)
        wait_until(lambda: not scrape.differences(self.oracle, self.shards), "all is stored")
        return found

    def check(self, found):
        """That all is as with the oracle, and each group on its owner."""
        scrape.assert_same(self.oracle, self.shards)
        at = scrape.places(self.shards)
        assert sorted(place for (place,) in at.values()) == sorted(owner.address.text for _, owner in found.values())


def test_every_type_and_label_moves_exactly(lab, options):
    setup = Setup(lab, **options)
    found = setup.misplace(PATHS)
    before = [scrape.listed(shard) for shard in setup.shards]

    planned = reconcile(setup.replica, "--dry-run")
    assert planned.code == 0, planned
    assert [scrape.listed(shard) for shard in setup.shards] == before
    expected = sorted((wrong.address.text, owner.address.text, "misplaced") for wrong, owner in found.values())
    assert sorted(move[1:] for move in planned.moves) == expected
    move = next(move for move in planned.moves if move.group == "/metrics/job/two/a/1/b/2")
    wrong, owner = found["/metrics/job/two/b/2/a/1"]
    assert move[1:] == (wrong.address.text, owner.address.text, "misplaced")

    done = reconcile(setup.replica)
    assert done.code == 0, done
    assert sorted(done.moves) == sorted(planned.moves)
    setup.check(found)
    after = reconcile(setup.replica)
    assert (after.code, after.moves) == (0, [])


def test_duplicates_become_one_by_the_newer_family(lab):
    setup = Setup(lab)
    paths = [f"/metrics/job/doubled/number/{number}" for number in range(6)]
    found = misplacements(setup.replica, setup.shards, paths)
    for number, (path, (wrong, owner)) in enumerate(found.items()):
        first, second = (wrong, owner) if number % 2 else (owner, wrong)
        setup.push(first, path, b"# TYPE both counter\nboth 1\n# HELP early Early.\n# TYPE early gauge\nearly 1\n")
        setup.push(second, path, b"# TYPE both counter\nboth 2\n# HELP late Late.\n# TYPE late gauge\nlate 2\n")
    third = next(shard for shard in setup.shards if shard not in found[paths[0]])
    setup.push(third, paths[0], b"thrice 3\n")

    planned = reconcile(setup.replica, "--dry-run")
    expected = [
        (path, wrong.address.text, owner.address.text, "duplicate") for path, (wrong, owner) in found.items()
    ] + [(paths[0], third.address.text, found[paths[0]][1].address.text, "duplicate")]
    assert (planned.code, sorted(planned.moves)) == (0, sorted(expected))
    done = reconcile(setup.replica)
    assert (done.code, sorted(done.moves)) == (0, sorted(expected))
    setup.check(found)


def test_groups_on_their_owners_are_left_alone(lab):
    setup = Setup(lab)
    paths = [f"/metrics/job/settled/number/{number}" for number in range(10)]
    for path, (_, owner) in misplacements(setup.replica, setup.shards, paths).items():
        setup.push(owner, path, TEXT)
    before = [scrape.listed(shard) for shard in setup.shards]
    done = reconcile(setup.replica)
    assert (done.code, done.moves) == (0, [])
    assert [scrape.listed(shard) for shard in setup.shards] == before


@pytest.mark.core
@pytest.mark.parametrize("discovery", ["static", "consul"])
def test_serve_moves_groups_by_itself(lab, discovery):
    setup = Setup(lab)
    found = setup.misplace(PATHS[:8])
    consul = None
    if discovery == "consul":
        consul = lab.consul()
        for shard in setup.shards:
            consul.register(shard.address)
    replica = lab.shardd(setup.shards, consul=consul, reconcile=OFTEN)
    wait_until(
        lambda: len(scrape.places(setup.shards)) == len(found)
        and replica.metric("shardd_reconcile_runs_total", result="success"),
        "a run has succeeded",
        20,
    )
    wait_reconciled([replica], setup.shards)
    setup.check(found)
    assert replica.metric("shardd_reconcile_groups_moved_total") == len(found)
    # Where two shards have held groups of one slot, one of them is given the other's as well, until it has none.
    assert replica.metric("shardd_reconcile_copies_deleted_total") >= len(found)
    assert replica.metric("shardd_reconcile_duplicate_groups") == 0
    assert abs(replica.metric("shardd_reconcile_last_success_timestamp_seconds") - time.time()) < 30
    assert replica.metric("shardd_reconcile_runs_total", result="failed") == 0
    if consul:
        assert consul.call("GET", "/v1/kv/shardd/pushgateway/reconcile?keys") == ["shardd/pushgateway/reconcile"]


def test_without_reconciling_serve_moves_nothing(lab):
    setup = Setup(lab)
    setup.misplace(PATHS[:3])
    before = [scrape.listed(shard) for shard in setup.shards]
    lab.shardd(setup.shards, reconcile={**OFTEN, "enabled": False})
    time.sleep(4)
    assert [scrape.listed(shard) for shard in setup.shards] == before


def test_groups_whose_last_push_failed(lab):
    """One that has metrics from before, and one that has nothing but the time of the failure."""
    setup = Setup(lab)
    paths = ["/metrics/job/failed/after/success", "/metrics/job/failed/from/start", "/metrics/job/fine"]
    found = misplacements(setup.replica, setup.shards, paths)
    for path in (paths[0], paths[2]):
        setup.push(found[path][0], path, TEXT)
    for path in paths[:2]:
        setup.push(found[path][0], path, b"stamped 1 1000\n", statuses=[400])
    done = reconcile(setup.replica)
    assert done.code == 0, done
    setup.check(found)
    states = {
        scrape.group_name(group["labels"]): group["last_push_successful"]
        for shard in setup.shards
        for group in scrape.listed(shard)
    }
    assert states == {paths[0]: False, paths[1]: False, paths[2]: True}
    again = reconcile(setup.replica)
    assert (again.code, again.moves) == (0, [])


def test_groups_behind_basic_auth_move(lab):
    """By shardd's own credentials, which it does not lend to clients."""
    (lab.directory / "web.yml").write_text(f"basic_auth_users: {{pusher: '{SECRET_WORD_BCRYPT}'}}\n")
    login = [("Authorization", "Basic " + base64.b64encode(b"pusher:secret word").decode())]
    gateways = lab.pushgateways(2, f"--web.config.file={lab.directory / 'web.yml'}", headers=login)
    settings = {"port": 9091, "servers": [gateway.address.text for gateway in gateways]}
    stranger = lab.shardd(start=False, pushgateway={**settings, "username": "pusher", "password": "wrong"})
    paths = [f"/metrics/job/secret/number/{number}" for number in range(12)]
    found = misplacements(stranger, gateways, paths)
    for path, (wrong, _) in found.items():
        assert ask(wrong.address, "PUT", path, b"some 1\n", login).status == 200
    before = scrape.places(gateways)

    refused = reconcile(stranger)
    assert refused.code == 1 and scrape.places(gateways) == before
    assert refused.errors.strip()

    known = {**settings, "username": "pusher", "password": "secret word"}
    replica = lab.shardd(pushgateway=known, reconcile=OFTEN)
    owned = {path: [owner.address.text] for path, (_, owner) in found.items()}
    wait_until(lambda: scrape.places(gateways) == owned, "every group is on its owner", 20)
    assert replica.ask("PUT", paths[0], b"some 2\n").status == 401
    assert replica.ask("PUT", paths[0], b"some 2\n", login).status == 200
    assert replica.ask("DELETE", paths[1], headers=login).status == 202
    del owned[paths[1]]
    wait_until(lambda: scrape.places(gateways) == owned, "only what was deleted is gone")


def test_a_histogram_without_buckets_stays_where_it_is(lab):
    """The API tells of its count and sum as of one that has buckets which it cannot tell."""
    setup = Setup(lab)
    paths = ["/metrics/job/bare", "/metrics/job/whole"]
    found = misplacements(setup.replica, setup.shards, paths)
    setup.push(found[paths[0]][0], paths[0], b"# TYPE bare histogram\nbare_sum 3\nbare_count 4\n")
    setup.push(found[paths[1]][0], paths[1], b"other 3\n")
    done = reconcile(setup.replica)
    assert done.code == 1 and paths[0] in done.errors and "bare" in done.errors, done
    assert scrape.scrape_differences(setup.oracle, setup.shards) == []
    at = scrape.places(setup.shards)
    assert at == {path: [found[path][number].address.text] for number, path in enumerate(paths)}


def test_the_metrics_tell_of_a_group_that_cannot_be_moved(lab):
    """The replica that makes the run does; the other one tells of no success either."""
    cluster = Cluster(lab, 2, consul=True, replicas=0)
    path = "/metrics/job/bare/for/good"
    (wrong, _) = cluster.misplace([path], "# TYPE bare histogram\nbare_sum 3\nbare_count 4\n")[path]
    cluster.start_replicas(2)
    cluster.request("POST", path, "other 3\n")
    wait_until(lambda: any("bare" in replica.log() for replica in cluster.replicas), "the log names the family", 20)
    wait_until(lambda: cluster.metric("shardd_reconcile_duplicate_groups") > 0, "the group is told to be on two shards")
    success = cluster.metric("shardd_reconcile_last_success_timestamp_seconds")
    time.sleep(3)
    assert cluster.metric("shardd_reconcile_duplicate_groups") > 0
    assert cluster.metric("shardd_reconcile_last_success_timestamp_seconds") == success
    assert cluster.metric("shardd_reconcile_runs_total", result="partial") > 0
    moment = time.time()
    assert ask(wrong.address, "DELETE", path).status == 202
    cluster.request("POST", path, "bare 4\n")
    for replica in cluster.replicas:
        wait_until(lambda: replica.metric("shardd_reconcile_duplicate_groups") == 0, "the group is on one shard", 20)
        wait_until(lambda: is_reconciled_since([replica], moment), "a run has succeeded", 20)


def test_what_the_api_hides_stays_where_it_is(lab):
    """A family named as a field of the API's list takes the field's place: the group's labels, or the family, are unknown."""
    setup = Setup(lab)
    paths = ["/metrics/job/hidden/by/labels", "/metrics/job/hidden/by/success", "/metrics/job/shown"]
    found = misplacements(setup.replica, setup.shards, paths)
    setup.push(found[paths[0]][0], paths[0], b"labels 1\nother 1\n")
    setup.push(found[paths[1]][0], paths[1], b"last_push_successful 2\nother 2\n")
    setup.push(found[paths[2]][0], paths[2], b"other 3\n")
    reconcile(setup.replica)
    assert scrape.scrape_differences(setup.oracle, setup.shards) == []
    assert "/metrics/job/shown" in scrape.places([found[paths[2]][1]])


def test_utf8_names_move_exactly(lab):
    """As Pushgateway takes them from 1.11 on."""
    setup = Setup(lab, arguments=("--push.enable-utf8-names",), program=NEWEST)
    paths = [
        "/metrics/job/utf8/U__host_2e_name/a.b",
        "/metrics/job/utf8/U___65e5__672c_/%E6%97%A5/plain/x",
        "/metrics/job/utf8/U__with_20_space@base64/" + in_base64("a/b"),
    ]
    found = misplacements(setup.replica, setup.shards, paths)
    body = 'a_plain 1\n# HELP "dotted.name" Help.\n# TYPE "dotted.name" counter\n{"dotted.name","lab.el"="v","é"="\\"q"} 2\n'
    for path, (wrong, _) in found.items():
        setup.push(wrong, path, body.encode())
    done = reconcile(setup.replica)
    assert done.code == 0, done
    assert scrape.differences(setup.oracle, setup.shards) == []
    at = scrape.places(setup.shards)
    assert sorted(place for (place,) in at.values()) == sorted(owner.address.text for _, owner in found.values())
    after = reconcile(setup.replica)
    assert (after.code, after.moves) == (0, [])


@pytest.mark.parametrize("ordinary", [False, True])
@pytest.mark.parametrize("program", ["installed", "newest"])
def test_native_histograms_are_not_lost(lab, program, ordinary):
    """The API tells of their count and sum only, or of the ordinary buckets that they have too; whether they move or stay,
    their buckets must be there."""
    setup = Setup(lab, **({"program": NEWEST} if program == "newest" else {}))
    path = "/metrics/job/native"
    wrong, owner = misplacements(setup.replica, setup.shards, [path])[path]
    native = protobuf.native_histogram(7, 3.5, [1, 2, -1])
    if ordinary:
        native += protobuf.histogram(7, 3.5, [(1, 3), (float("inf"), 7)])
    body = protobuf.family("n_latency", "HISTOGRAM", [({"code": "200"}, native)], "Native.")
    setup.push(wrong, path, body, [("Content-Type", protobuf.CONTENT_TYPE)])

    def buckets(gateway):
        answer = ask(gateway.address, "GET", "/metrics", headers=[("Accept", protobuf.CONTENT_TYPE)])
        return answer.body.count(protobuf.message(12, protobuf.signed(1, 0) + protobuf.integer(2, 3)))

    assert buckets(setup.oracle) == buckets(wrong) == 1
    reconcile(setup.replica)
    assert sum(buckets(shard) for shard in setup.shards) == 1, "the buckets are lost, or doubled"
