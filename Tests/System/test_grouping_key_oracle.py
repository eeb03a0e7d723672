"""The grouping-key parser against a real Pushgateway: random paths, well-formed and not, go to both.

A push carries a metric of its own, so the Pushgateway's API tells which group each path ended in and what its labels
are. SEED repeats a run.
"""

import base64
import codecs
import json
import os
import random
import re
import subprocess
import urllib.parse

import pytest
from harness.http import Connection, ask
from harness.net import wait_until
from harness.pushgateway import NEWEST
from harness.shardd import BINARY

WELL_FORMED_GROUPS = 1000
MALFORMED_PATHS = 4000
# So many pushes go to a Pushgateway before it is emptied: its consistency check looks at all that it holds.
BATCH = 60

NAMES = ["a", "b", "ab", "abc", "A", "_", "_x", "a1", "instance", "label_one", "label_two", "zone", "Job", "jobs"]
# A name like any other, but no UTF-8 name in escapes, since those are not empty.
ONLY_PLAIN_NAMES = ["U__"]
UTF8_NAMES = ["a.b", "a_b.c", "host name", "é", "日本.x", "😀", "1a", "a@b", "-", "x:y"]
TEXTS = ["x", "1", "a b", "a+b", "50%", "%2F", "/", "/var/tmp", "a//b", "é", "日本", "😀", "ü/ü", ".", "..", "a=b&c",
         "?", "#", "~~?>", "job", '"', "\\", "\t\n", "\x00", "\x7f", "x" * 300, "U__a", "a@base64", ":9091", "[::1]:9091"]  # fmt: skip


@pytest.fixture
def chance():
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"SEED={seed}")
    return random.Random(seed)


@pytest.fixture(params=["installed", "newest"])
def is_newest(request):
    """Whether the oracle is Pushgateway 1.11 with UTF-8 names and the mux of Go 1.22, or the 1.5 that is installed."""
    return request.param == "newest"


class Oracle:
    """A Pushgateway that is asked what it makes of paths."""

    def __init__(self, lab, is_newest, is_checking=True):
        """`is_checking` is for its consistency check, without which a push is answered 202 and any bytes are kept."""
        self.gateway = lab.pushgateway("--web.enable-admin-api", start=False)
        if not is_checking:
            self.gateway.argv.append("--push.disable-consistency-check")
        if is_newest:
            # Debian builds it with the old mux, upstream does not.
            self.gateway.argv[:1] = ["env", "GODEBUG=httpmuxgo121=0", str(NEWEST)]
            self.gateway.argv.append("--push.enable-utf8-names")
        self.gateway.start().wait_ready()
        self.taken = 200 if is_checking else 202

    def labels(self, paths):
        """For each path the labels of the group that it ended in, as sorted pairs; None where it was refused."""
        groups = {}
        for start in range(0, len(paths), BATCH):
            self._empty()
            batch = range(start, min(start + BATCH, len(paths)))
            taken = {number for number in batch if self._push(paths[number], number)}
            # Without the check it answers before it has stored.
            (found,) = wait_until(lambda: self._just(taken), "every push that was taken is in a group", every=0.01)
            groups |= found
        return [groups.get(number) for number in range(len(paths))]

    def _empty(self):
        with Connection(self.gateway.address) as connection:
            assert connection.ask("PUT", "/api/v1/admin/wipe").status == 202

    def _push(self, path, number):
        # A connection for each, because a path that is no HTTP ends it.
        with Connection(self.gateway.address, timeout=5) as connection:
            answer = connection.ask("POST", path.decode("latin-1"), b"m%d 1\n" % number)
        assert b"inconsistent" not in answer.body, (path, answer)
        return answer.status == self.taken

    def _just(self, numbers):
        """Labels by the number of a push, in a list of one, once just these pushes are there; None until then."""
        found = {}
        for group in json.loads(ask(self.gateway.address, "GET", "/api/v1/metrics").body)["data"]:
            for name in group:
                if re.fullmatch(r"m\d+", name):
                    assert int(name[1:]) not in found, "a push ended in two groups"
                    found[int(name[1:])] = tuple(sorted(group["labels"].items()))
        return [found] if set(found) == numbers else None


def locate(paths):
    """For each path its grouping key and hash by `shardd locate`; None where that is the path of no push."""
    result = subprocess.run(
        [BINARY, "locate", "--shards=10.0.0.1:9091,10.0.0.2:9091"],
        input=b"\n".join(paths), capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode in (0, 1), result
    located = {}
    for line in result.stdout.splitlines():
        path, key, number, _ = line.split(b"\t")
        located[unescaped(path)] = (unescaped(key), number)
    assert len(located) + len(set(result.stderr.splitlines())) == len(set(paths))
    return [located.get(path) for path in paths]


def unescaped(field):
    special = {b"\\\\": b"\\", b"\\t": b"\t", b"\\n": b"\n", b"\\r": b"\r"}
    return re.sub(
        rb"\\(?:x([0-9a-f]{2})|.)", lambda match: special.get(match[0]) or bytes.fromhex(match[1].decode()), field
    )


def as_json_tells(key):
    """The key as Go writes it to JSON, where each byte that is no UTF-8 becomes U+FFFD."""
    return key.decode(errors="replace-each").encode()


codecs.register_error("replace-each", lambda error: ("\ufffd", error.start + 1))


def key_of(labels):
    """The text of a group's grouping key, by its definition."""
    labels = {unescaped_name(name): value for name, value in labels}
    parts = ["/metrics/job", labels.pop("job")]
    for name in sorted(labels, key=str.encode):
        if labels[name]:
            parts += [name, labels[name]]
    return "/".join(parts).encode()


def unescaped_name(name):
    """A name that only a Pushgateway with UTF-8 names stores unescaped, as that one does."""
    if not re.fullmatch(r"U__([^_]|__|_[0-9A-Fa-f]{1,5}_)+", name) or re.search("(?i)_0*d[89a-f]..(?=_)", name):
        return name
    return re.sub("_(?:_|(.+?)_)", lambda match: chr(int(match[1], 16)) if match[1] else "_", name[3:])


# Spellings of groups


def random_text(chance):
    if chance.random() < 0.7:
        return chance.choice(TEXTS)
    return "".join(chance.choices("abcxyz019._-+~é/ ", k=chance.randint(1, 12)))


def random_group(chance, names):
    labels = {name: random_text(chance) for name in chance.sample(names, chance.choice((0, 1, 1, 2, 3, 4, 6)))}
    for name in labels:
        # A Pushgateway gives every group an instance, so it holds that none and an empty one are inconsistent.
        if name != "instance" and chance.random() < 0.1:
            labels[name] = ""
    return random_text(chance), labels


def percent_encoded(chance, text, rate):
    """The text as a segment of a path: what must be encoded is, and as much of the rest as chance wills."""
    encoded = b""
    for byte in text.encode():
        must = byte <= 0x20 or byte == 0x7F or byte in b"/%?"
        if must or chance.random() < rate or byte >= 0x80 and chance.random() < 0.8:
            encoded += (b"%%%02X" if chance.random() < 0.5 else b"%%%02x") % byte
        else:
            encoded += bytes([byte])
    return encoded


def base64_encoded(chance, text, rate):
    encoded = base64.urlsafe_b64encode(text.encode()).decode()
    if chance.random() < 0.5:
        encoded = encoded.rstrip("=")
    if chance.random() < 0.1:
        encoded += "=" * chance.randint(1, 4)
    if chance.random() < 0.1:
        place = chance.randint(0, len(encoded.rstrip("=")))
        encoded = encoded[:place] + chance.choice(("\n", "\r\n")) + encoded[place:]
    return percent_encoded(chance, encoded or "=", rate)


def escaped_name(chance, name):
    """A name by chance as prometheus/common escapes values: U__ in front, _HEX_ for what a plain name cannot have."""
    if re.fullmatch("[a-zA-Z_][a-zA-Z0-9_]*", name) or chance.random() < 0.5:
        return name
    text = "U__"
    for place, letter in enumerate(name):
        if letter == "_":
            text += "__"
        elif re.fullmatch("[a-zA-Z]" if place == 0 else "[a-zA-Z0-9]", letter):
            text += letter
        else:
            text += f"_{ord(letter):x}_" if chance.random() < 0.7 else f"_{ord(letter):X}_"
    return text


def segments(chance, name, value, rate):
    """A name and its value, the value in base64 by chance or where no other encoding would do."""
    name = escaped_name(chance, name)
    needs_base64 = value in ("", ".", "..") or "/" in value
    if needs_base64 or chance.random() < 0.25:
        return percent_encoded(chance, name + "@base64", rate) + b"/" + base64_encoded(chance, value, rate)
    return percent_encoded(chance, name, rate) + b"/" + percent_encoded(chance, value, rate)


def spelling(chance, job, labels):
    """One of the many paths of a group."""
    rate = chance.choice((0, 0, 0.05, 0.5, 1))
    order = list(labels.items())
    chance.shuffle(order)
    pairs = []
    for name, value in order:
        if chance.random() < 0.1:
            pairs.append(segments(chance, name, random_text(chance), rate))
        pairs.append(segments(chance, name, value, rate))
        if chance.random() < 0.05:
            pairs.append(segments(chance, "job", random_text(chance), rate))
    slash = b"/" if rate == 0 or chance.random() < 0.9 else b"%2F"
    path = b"/" + percent_encoded(chance, "metrics", rate) + slash + segments(chance, "job", job, rate)
    if pairs:
        path += b"/" + b"/".join(pairs)
    elif chance.random() < 0.2:
        path += b"/"
    if chance.random() < 0.05:
        path = path.replace(b"@base64/", b"%40base64%2f")
    return path


# What is wrong with a path

BAD_NAMES = [b"__name", b"__", b"1a/x/a", b"@base64", b"", b"%5f_x", b"__x@base64"]
# Jobs in base64: a bad one makes Pushgateway 1.5 hang at every later one.
HANGS_1_5 = re.compile(b"(?i)/+metrics/+job@base64/")
BAD_BASE64 = [b"a", b"abcde", b"a+==", b"a/b=", b"YQ=x", b"!", b"%2Fabc", b"ab%zz"]


def malformed(chance, path):
    """A path with something done to it, mostly wrong."""
    parts = path.split(b"/")
    place = chance.randrange(1, len(parts) + 1)
    kind = chance.randrange(12)
    if kind == 0:
        parts.pop()
    elif kind == 1:
        parts.append(b"")
    elif kind == 2:
        parts.insert(place, chance.choice((b"", b".", b"..", b"%2e", b"%2E%2e", b"a")))
    elif kind == 3:
        parts += [chance.choice(BAD_NAMES), b"x"]
    elif kind == 4:
        parts += [b"a@base64", chance.choice(BAD_BASE64)]
    elif kind == 5:
        parts[place - 1] += chance.choice((b"%", b"%1", b"%zz", b"%%", b"%2", b"\x01", b"\x7f", b"\t"))
    elif kind == 6:
        parts[2:3] = [chance.choice((b"Job", b"jobs", b"job@base6", b"job@Base64", b"job/", b""))]
    elif kind == 7:
        parts.insert(place, b"%2F")
    elif kind == 8:
        parts[2:4] = [b"job@base64", chance.choice(BAD_BASE64)]
    else:
        path = bytearray(b"/".join(parts))
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(1, len(path))
            path[place : place + chance.randint(0, 2)] = bytes(
                chance.choices(b"/%.@=_-+a1ABZz2fF\x80\xff:", k=chance.randint(0, 2))
            )
        return bytes(path)
    return b"/".join(parts)


def decoded(path):
    return urllib.parse.unquote_to_bytes(path.partition(b"?")[0])


def is_taken_by_newer_versions(path):
    """Whether a path that Pushgateway 1.5 refuses may be fine for a later one.

    Since Go 1.22 a path is cleaned as it is encoded, so that %2F and %2E may make empty segments and dots; since 1.11
    `--push.enable-utf8-names` allows any UTF-8 as a name.
    """
    path = path.partition(b"?")[0]
    raw, plain = path.split(b"/")[1:], decoded(path).split(b"/")[1:]
    is_refused = re.search(rb"%(?![0-9A-Fa-f]{2})|[\x00-\x20\x7f]", path) or not is_clean(raw) or len(plain) % 2 == 0
    if is_refused and plain[3:] != [b""]:
        return False
    names = [name.removesuffix(b"@base64") for name in plain[3::2]]
    return not is_clean(plain) or any(not re.fullmatch(rb"[a-zA-Z_][a-zA-Z0-9_]*", name) for name in names)


def is_clean(parts):
    return not any(part in (b".", b"..") for part in parts) and b"" not in parts[:-1]


def test_spellings_of_one_group_have_one_hash_and_its_labels(lab, chance, is_newest):
    oracle = Oracle(lab, is_newest)
    names = NAMES + (UTF8_NAMES if is_newest else ONLY_PLAIN_NAMES)
    groups = [random_group(chance, names) for _ in range(WELL_FORMED_GROUPS)]
    paths = [(group, spelling(chance, *group)) for group in groups for _ in range(chance.randint(2, 6))]
    chance.shuffle(paths)
    stored = oracle.labels([path for _, path in paths])
    located = locate([path for _, path in paths])
    hashes = {}
    for ((job, labels), path), kept, (key, number) in zip(paths, stored, located):
        assert kept is not None, f"not taken: {path}"
        assert dict(kept) == {**labels, "job": job}, path
        assert key == key_of(kept), path
        assert hashes.setdefault(kept, number) == number, path
    assert len(hashes) > WELL_FORMED_GROUPS * 0.8


def test_malformed_paths_are_hashed_as_they_are(lab, chance, is_newest):
    oracle = Oracle(lab, is_newest, is_checking=False)
    names = NAMES + (UTF8_NAMES if is_newest else ONLY_PLAIN_NAMES)
    paths = []
    while len(paths) < MALFORMED_PATHS:
        path = malformed(chance, spelling(chance, *random_group(chance, names)))
        is_sendable = path.startswith(b"/") and not re.search(rb"\s", path)
        if is_sendable and (is_newest or not HANGS_1_5.match(decoded(path))):
            paths.append(path)
    stored = oracle.labels(paths)
    refused = 0
    for path, kept, place in zip(paths, stored, locate(paths)):
        if kept is not None:
            assert place and as_json_tells(place[0]) == key_of(kept), path
        elif place and not (b"/U__" in decoded(path) if is_newest else is_taken_by_newer_versions(path)):
            refused += 1
            assert place[0] == path.partition(b"?")[0], path
    print(f"{len(paths)} paths: {len(paths) - stored.count(None)} taken, {refused} refused and hashed as they are")
    assert refused > MALFORMED_PATHS * 0.3


def test_a_job_that_is_bad_base64_is_hashed_as_it_is(lab):
    """By itself, because one such push makes every later one with a job in base64 hang, up to Pushgateway 1.6.0."""
    paths = [b"/metrics/job@base64/" + job + rest for job in (b"=", b"", *BAD_BASE64) for rest in (b"", b"/b/2/a/1")]
    for path, place in zip(paths, locate(paths)):
        assert Oracle(lab, is_newest=False).labels([path]) == [None]
        assert place[0] == path
