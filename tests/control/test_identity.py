# SPDX-License-Identifier: Apache-2.0
"""Who asks: API keys, service accounts, client certificates and an identity provider's tokens."""
import base64
import json
import time

import grpc
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from mock_daemon import Client, ask, make_key, wait_until
from mock_gateway import Gateway

ISSUER, AUDIENCE = "https://idp.example", "phalanx"


def b64(data):
    if isinstance(data, int):
        data = data.to_bytes((data.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Provider:
    """An identity provider with a key of each kind."""

    def __init__(self, path):
        self.path = path
        self.keys = {"RS256": rsa.generate_private_key(65537, 2048), "ES256": ec.generate_private_key(ec.SECP256R1()),
                     "EdDSA": ed25519.Ed25519PrivateKey.generate()}
        self.write(self.keys)

    def write(self, names):
        r, e = (self.keys[a].public_key().public_numbers() for a in ("RS256", "ES256"))
        x = self.keys["EdDSA"].public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        all_ = {"RS256": {"kty": "RSA", "n": b64(r.n), "e": b64(r.e)},
                "ES256": {"kty": "EC", "crv": "P-256", "x": b64(e.x.to_bytes(32, "big")),
                          "y": b64(e.y.to_bytes(32, "big"))},
                "EdDSA": {"kty": "OKP", "crv": "Ed25519", "x": b64(x)}}
        self.path.write_text(json.dumps({"keys": [{"kid": n, "use": "sig", **all_[n]} for n in names]}))

    def sign(self, algorithm, data):
        key = self.keys[algorithm]
        if algorithm == "RS256":
            return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        if algorithm == "EdDSA":
            return key.sign(data)
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def token(self, algorithm="ES256", header=None, **claims):
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "org": "acme", "iat": now, "exp": now + 300, **claims}
        head = {"alg": algorithm, "typ": "JWT", "kid": algorithm, **(header or {})}
        text = b64(json.dumps(head).encode()) + "." + b64(json.dumps(claims).encode())
        return text + "." + b64(self.sign(algorithm, text.encode()))


@pytest.fixture
def provider(tmp_path):
    return Provider(tmp_path / "jwks.json")


@pytest.fixture
def daemon(provider, make_daemon):
    return make_daemon("data", f"oidc.jwks_file={provider.path}", f"oidc.issuer={ISSUER}", f"oidc.audience={AUDIENCE}",
                       "oidc.tenant_claim=org")


def who(daemon, answer):
    status, body, _ = answer
    assert status == 200, body
    row = daemon.rows("SELECT record FROM audit WHERE receipt = ? AND kind = 'intent'", body["receipt"])[0][0]
    return json.loads(row)["who"]


def seats(daemon):
    n = json.loads(daemon.run("license", "seats", "--data", daemon.folder, "--json").stdout)
    return n["people"], n["indirect"]


def test_tokens_as_bearer(daemon, provider):
    daemon.start()
    for algorithm in ("RS256", "ES256", "EdDSA"):
        one = who(daemon, ask(daemon, provider.token(algorithm)))
        assert (one["auth"], one["tenant"], one["issuer"], one["is_person"]) == ("token", "acme", ISSUER, 1)
    assert seats(daemon) == (1, 0), "one person, whatever signed"
    now = int(time.time())
    good = provider.token()
    cut = good.rsplit(".", 1)[0]
    none = b64(b'{"alg":"none","typ":"JWT"}') + "." + good.split(".")[1] + "."
    hmac = b64(b'{"alg":"HS256","typ":"JWT","kid":"ES256"}') + "." + good.split(".")[1] + "." + b64(bytes(32))
    for bad in (provider.token(aud="another"), provider.token(iss="https://evil.example"), provider.token(exp=now - 120),
                provider.token(nbf=now + 600), provider.token(sub=""), provider.token(sub=None), provider.token(org="a b"),
                provider.token(header={"kid": "RS256"}), provider.token(header={"kid": "nobody"}),
                provider.token(header={"crit": ["x"]}), cut, cut + ".", good[:-4] + "AAAA", none, hmac, "a.b.c", "."):
        status, body, headers = ask(daemon, bad)
        assert (status, headers["WWW-Authenticate"]) == (401, "Bearer"), (bad, body)
        assert bad not in json.dumps(body)
    assert seats(daemon) == (1, 0), "a refused token takes no seat"
    provider.write(["ES256"])  # keys that were taken out are refused within seconds, the others go on
    wait_until(lambda: ask(daemon, provider.token("RS256"))[0] == 401, 5)
    assert ask(daemon, provider.token("ES256"))[0] == 200
    provider.path.write_text("{")  # a broken file locks nobody out
    time.sleep(1.1)
    assert ask(daemon, provider.token("ES256"))[0] == 200
    assert "oidc.keys.fail" in daemon.log()
    assert provider.token("EdDSA").split(".")[2] not in daemon.log()


def test_a_service_on_behalf_of_people(daemon, provider):
    service, person = make_key(daemon, "acme", "portal", "--service"), make_key(daemon, "acme", "bob")
    other = make_key(daemon, "umbrella", "portal", "--service")
    daemon.start()
    assert who(daemon, ask(daemon, service))["is_person"] == 0
    assert seats(daemon) == (0, 1)
    behalf = {"x-phalanx-on-behalf-of": provider.token()}
    one = who(daemon, ask(daemon, service, behalf))
    assert (one["auth"], one["service"], one["is_person"], one["issuer"]) == ("token", "portal", 1, ISSUER)
    assert seats(daemon) == (1, 1)
    ask(daemon, provider.token())
    assert seats(daemon) == (1, 1), "the same issuer and subject is the same person"
    make_key_of_ann = make_key(daemon, "acme", "ann")
    wait_until(lambda: ask(daemon, make_key_of_ann)[0] == 200, 3)
    assert seats(daemon) == (2, 1), "a key's ann is vouched for by the cluster, a token's by the provider"
    assert ask(daemon, person, behalf)[0] == 403, "people do not speak for people"
    assert ask(daemon, other, behalf)[0] == 403, "nor services for another tenant's"
    assert ask(daemon, service, {"x-phalanx-on-behalf-of": provider.token(aud="another")})[0] == 401
    assert ask(daemon, service, {"x-phalanx-on-behalf-of": "ann"})[0] == 401, "a plain name is no identity"
    assert who(daemon, ask(daemon, person, {"x-user": "carol", "x-forwarded-user": "carol"}))["user"] != ""
    assert seats(daemon) == (3, 1)


def test_certificates(daemon):
    for kind, name in (("--user", "ann"), ("--service", "robot")):
        out = json.loads(daemon.run("user", "cert", "--data", daemon.folder, "--tenant", "acme", kind, name, "--out",
                                    daemon.folder.parent / name, "--json").stdout)
        assert out["name"].startswith("spiffe://phalanx/tenant/acme/") and out["days"] == 365
        assert (daemon.folder.parent / (name + ".key")).stat().st_mode & 0o777 == 0o600
    ann_key = make_key(daemon, "acme", "ann")
    daemon.start()
    ann = Gateway(daemon, certificate=daemon.folder.parent / "ann")
    ann.admit()
    assert seats(daemon) == (1, 0)
    assert ask(daemon, ann_key)[0] == 200
    assert seats(daemon) == (1, 0), "key and certificate of one user are one person"
    robot = Gateway(daemon, certificate=daemon.folder.parent / "robot")
    robot.admit()
    assert seats(daemon) == (1, 1)
    operator = Gateway(daemon)
    with pytest.raises(grpc.RpcError) as caught:
        operator.admit()
    assert caught.value.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
    for gateway in (ann, robot, operator):
        gateway.close()


def test_keys_live_and_end(daemon):
    daemon.start()
    out = json.loads(daemon.run("key", "create", "--data", daemon.folder, "--tenant", "acme", "--user", "eve", "--json",
                                "--cost-centre", "lab-7", "--expires-days", "1").stdout)
    assert out["expires_ns"] - out["created_ns"] == pytest.approx(86400e9, rel=1e-3)
    wait_until(lambda: ask(daemon, out["key"])[0] == 200, 3)
    auditor = make_key(daemon, "acme", "otto", "--roles", "auditor")
    wait_until(lambda: ask(daemon, auditor)[0] == 403, 3)
    daemon.run("key", "revoke", out["id"], "--data", daemon.folder)
    time.sleep(1.2)
    assert ask(daemon, out["key"])[0] == 401, "not once more, though nobody has asked in between"
    assert daemon.run("key", "revoke", out["id"], "--data", daemon.folder, check=False).returncode == 1
    keys = {k["id"]: k for k in json.loads(daemon.run("key", "list", "--data", daemon.folder, "--json").stdout)["keys"]}
    assert keys[out["id"]]["revoked_ns"] > 0 and "key" not in keys[out["id"]]
    assert out["key"].encode() not in (daemon.folder / "phalanx.db").read_bytes()
    assert ask(daemon, "phx_" + "a" * 43)[0] == 401
    client = Client(daemon, "x")
    client.key = ""
    assert client.post({})[0] == 401
    client.close()
