"""The empty instance: in no spelling may it poison a shard, and what is stored of the old form is not lost."""

import pytest
from harness.bodies import scrape_problem
from harness.http import ask
from harness.net import wait_until
from harness.pushgateway import NEWEST
from harness.stub import answers

# Two labels in each way, so that what is left out is not only the last one.
SPELLINGS = ["/instance@base64/=", "/instance/", "/instance@base64/", "/instance@base64/===", "/instance@base64/%3D",
             "/%69nstance@base64/=", "/instance%40base64/=", "/instance@base64%2F=", "/instance/x/instance@base64/=",
             "/instance@base64/eA/instance/", "/instance@base64/%0A", "/instance@base64/=/job/q"]  # fmt: skip
ESCAPED = ["/U__instance@base64/=", "/U__in_73_tance/", "/U__instance/x/instance@base64/=", "/instance@base64/=/U__instance@base64/="]


@pytest.fixture(params=["installed", "newest"])
def program(request):
    return {"installed": "prometheus-pushgateway", "newest": NEWEST}[request.param]


@pytest.fixture
def shard(lab, program):
    return lab.pushgateway("--web.enable-admin-api", program=program)


def poisons(lab, program, first, second):
    """Whether a Pushgateway that gets both paths fails from then on."""
    shard = lab.pushgateway(program=program)
    ask(shard.address, "PUT", first, b"x 1\n")
    assert ask(shard.address, "GET", "/metrics").status == 200
    try:
        ask(shard.address, "PUT", second, b"y 1\n")
    except Exception:  # Debian's 1.11 closes the connection where its check refuses a push.
        pass
    poisoned = ask(shard.address, "GET", "/metrics").status == 500
    shard.stop()
    return poisoned


def test_it_poisons_a_pushgateway(lab, program):
    assert poisons(lab, program, "/metrics/job/b", "/metrics/job/b/instance@base64/=")
    assert poisons(lab, program, "/metrics/job/b/instance/", "/metrics/job/b")
    assert not poisons(lab, program, "/metrics/job/b", "/metrics/job/b/x@base64/=")


@pytest.mark.parametrize("order", ["plain first", "empty first"])
def test_every_spelling_is_the_group_without_it(lab, shard, order):
    replica = lab.shardd([shard])
    for number, spelling in enumerate(SPELLINGS):
        job, plain = f"/metrics/job/b{number}", {"job": f"b{number}"}
        paths = [job, job + spelling] if order == "plain first" else [job + spelling, job]
        for path in paths:
            assert replica.push(path, "x 1\n").status == 200, path
            assert replica.push(path, "y 1\n", method="POST").status == 200, path
            assert shard.groups().count(plain) == 1, path
        assert [group for group in shard.groups() if group.get("instance") == ""] == []
        assert ask(replica.address, "GET", job + spelling).text.startswith(f"nextUrl:{shard.address.url}{job}")
    assert len(shard.groups()) == len(SPELLINGS)
    assert ask(shard.address, "GET", "/metrics").status == 200


def test_escaped_spellings(lab, shard):
    """Without --push.enable-utf8-names the name is another one, with it the same; the group without it is right in both."""
    replica = lab.shardd([shard])
    for number, spelling in enumerate(ESCAPED):
        job = f"/metrics/job/b{number}"
        for path in (job, job + spelling, job):
            assert replica.push(path, "x 1\n").status == 200, path
        assert ask(shard.address, "GET", "/metrics").status == 200, spelling
    with_names = lab.pushgateway("--push.enable-utf8-names", program=NEWEST)
    replica = lab.shardd([with_names])
    for number, spelling in enumerate(ESCAPED + SPELLINGS):
        job = f"/metrics/job/b{number}"
        for path in (job, job + spelling, job):
            assert replica.push(path, "x 1\n").status == 200, path
        assert {"job": f"b{number}"} in with_names.groups()
    assert ask(with_names.address, "GET", "/metrics").status == 200


def test_other_labels_and_the_query_stay_as_they_are(lab, shard):
    replica = lab.shardd([shard])
    for path, labels in {
        "/metrics/job/a%2Fb%20/instance/": None,
        "/metrics/job/a%20b/instance@base64/=/x@base64/eQ/y/%C3%A9": {"job": "a b", "x": "y", "y": "é"},
        "/metrics/job@base64/YS9i/z@base64/=/instance@base64/=": {"job": "a/b", "z": ""},
        "/metrics/job/q/instance@base64/=/z/?a=b": {"job": "q", "z": ""},
        "/metrics%2Fjob%2Fr%2Finstance%40base64%2F%3D%2Fa%2F1": {"job": "r", "a": "1"},
        "/metrics/job/s/instance@base64/=/instance/i": {"job": "s", "instance": "i"},
        "/metrics/job/t/xinstance/": {"job": "t", "xinstance": ""},
    }.items():
        answer = replica.push(path, "x 1\n")
        if labels is None:
            assert answer.status == 400, "an odd number of segments is refused by the shard"
        else:
            assert answer.status == 200, (path, answer)
            assert labels in shard.groups(), path
    assert ask(shard.address, "GET", "/metrics").status == 200


def test_a_put_replaces_a_stored_old_form(lab, shard):
    """Before the shard has been searched: the first request finds it."""
    assert ask(shard.address, "PUT", "/metrics/job/b/instance@base64/=", b"old 1\n").status == 200
    replica = lab.shardd([shard], wait=False)
    wait_until(lambda: push_once(replica, "/metrics/job/b/instance@base64/=", "new 1\n", "PUT"), "shardd accepts")
    assert shard.groups() == [{"job": "b"}]
    assert {name for name, _ in shard.samples() if not name.startswith("push_")} in ({"new"}, {"new", "old"})
    assert ask(shard.address, "GET", "/metrics").status == 200


def push_once(replica, path, text, method):
    try:
        return replica.push(path, text, method).status == 200
    except OSError:
        return False


def test_a_post_adds_to_a_stored_old_form(lab, shard):
    assert ask(shard.address, "PUT", "/metrics/job/b/instance@base64/=", b"old 1\nboth 1\n").status == 200
    replica = lab.shardd([shard], wait=False)
    wait_until(lambda: push_once(replica, "/metrics/job/b/instance@base64/=", "both 2\n", "POST"), "shardd accepts")
    assert shard.groups() == [{"job": "b"}]
    samples = {name: value for (name, _), value in shard.samples().items() if not name.startswith("push_")}
    assert samples == {"old": 1, "both": 2}


@pytest.mark.parametrize("path", ["/metrics/job/b/instance@base64/=", "/metrics/job/b/instance/"])
def test_a_delete_deletes_both_forms(lab, shard, path):
    replica = lab.shardd([shard])
    assert ask(shard.address, "PUT", "/metrics/job/b/instance@base64/=", b"old 1\n").status == 200
    assert replica.push(path, b"", method="DELETE").status == 202
    wait_until(lambda: shard.groups() == [], "the old form is deleted")
    assert replica.push("/metrics/job/b", "x 1\n").status == 200
    assert replica.push(path, b"", method="DELETE").status == 202
    wait_until(lambda: shard.groups() == [], "the plain form is deleted")


@pytest.mark.core
def test_stored_old_forms_are_moved_at_the_start(lab, shard):
    old = b"# HELP old Kept.\n# TYPE old counter\nold{a=\"1\"} 3\n# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_sum 5\nh_count 4\n"
    assert ask(shard.address, "PUT", "/metrics/job/b/x/y/instance@base64/=", old).status == 200
    before = {sample for sample in shard.samples().items() if not sample[0][0].startswith("push_")}
    replica = lab.shardd([shard])
    wait_until(lambda: shard.groups() == [{"job": "b", "x": "y"}], "the old form is moved")
    wait_until(
        lambda: {sample for sample in shard.samples().items() if not sample[0][0].startswith("push_")} == before,
        "all that it held is there",
    )
    assert replica.push("/metrics/job/b/x/y", "z 1\n", method="POST").status == 200
    assert ask(shard.address, "GET", "/metrics").status == 200


def test_a_poisoned_shard_is_healed_at_the_start(lab, shard):
    assert ask(shard.address, "PUT", "/metrics/job/b", b"plain 1\n").status == 200
    try:
        ask(shard.address, "PUT", "/metrics/job/b/instance@base64/=", b"old 1\n")
    except Exception:  # See above.
        pass
    assert ask(shard.address, "GET", "/metrics").status == 500
    replica = lab.shardd([shard])
    wait_until(lambda: ask(shard.address, "GET", "/metrics").status == 200, "the shard is healed")
    assert shard.groups() == [{"job": "b"}]
    assert replica.push("/metrics/job/other", "z 1\n").status == 200


def test_a_shard_that_comes_back_with_an_old_file_is_searched_again(lab, program, tmp_path):
    shard = lab.pushgateway(program=program, start=False).keep_in(tmp_path / "groups")
    shard.start().wait_ready()
    assert ask(shard.address, "PUT", "/metrics/job/b/instance@base64/=", b"old 1\n").status == 200
    shard.wait_persisted()
    kept = (tmp_path / "groups").read_bytes()
    replica = lab.shardd([shard])
    wait_until(lambda: shard.groups() == [{"job": "b"}], "the old form is moved")
    shard.kill()
    (tmp_path / "groups").write_bytes(kept)
    shard.start().wait_ready()
    assert shard.groups() == [{"job": "b", "instance": ""}]
    wait_until(lambda: shard.groups() == [{"job": "b"}], "the old form is moved again")
    assert replica.push("/metrics/job/b", "new 1\n").status == 200


@pytest.mark.core
def test_a_post_waits_for_its_shard_to_be_searched(lab, shard):
    """A stub in front of a Pushgateway, as no Pushgateway withholds its listing alone."""
    lists = []

    def relay(request):
        if request.target == "/api/v1/metrics" and not lists:
            return answers(500)
        head = [pair for pair in request.headers if pair[0] not in ("Content-Length", "Host")]
        answer = ask(shard.address, request.method, request.target, request.body, head)
        return answers(answer.status, answer.body)

    relay.relays = True
    stub = lab.stub(relay)
    assert ask(shard.address, "PUT", "/metrics/job/b/instance@base64/=", b"old 1\n").status == 200
    replica = lab.shardd([stub], forward={"response_timeout": "500ms"})
    answer = replica.push("/metrics/job/b/instance/", "new 1\n", method="POST")
    assert answer.status == 503 and answer.header("Retry-After") == "1" and "empty instance" in answer.text, answer
    assert replica.push("/metrics/job/other", method="POST").status == 200
    lists.append(True)
    wait_until(lambda: replica.push("/metrics/job/b/instance/", "new 1\n", "POST").status == 200, "it is searched", every=1)
    assert {name for name, _ in shard.samples()} >= {"old", "new"}


def test_a_shard_that_does_not_tell_who_it_is_is_pushed_to(lab):
    """A stub again: it answers /api/v1/status with 404. Nobody can list it either, so nothing waits for that."""
    stub = lab.stub()
    replica = lab.shardd([stub])
    assert replica.push("/metrics/job/b/instance/", "x 1\n", method="POST").status == 200
    assert [(request.method, request.target, request.body) for request in stub.requests] == [
        ("DELETE", "/metrics/job/b/instance/", b""),
        ("POST", "/metrics/job/b", b"x 1\n"),
    ]
    assert replica.metric("shardd_shard_requests_total") == 1


def test_redirecting_names_the_path_without_it(lab, shard):
    replica = lab.shardd([shard], mode="redirect")
    answer = replica.push("/metrics/job/b/instance@base64/=?x=y")
    assert (answer.status, answer.header("Location")) == (307, f"{shard.address.url}/metrics/job/b?x=y")


def test_locate_leaves_it_out(lab, shard):
    replica = lab.shardd([shard])
    keys = {replica.locate("/metrics/job/b" + spelling)["grouping_key"] for spelling in ["", *SPELLINGS]}
    assert keys == {"/metrics/job/b"}
    assert scrape_problem(shard.address) == "the scrape is cut"  # nothing was pushed, also not the canary
