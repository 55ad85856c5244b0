"""Signed tokens (JWT, RFC 7519) as access tokens are profiled by RFC 9068.

One algorithm is taken, ES256, and only keys for it are ever looked at: a token that names another (`none`,
or HMAC with our public key for its secret) is refused before anything is computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from joserfc import jws, jwt
from joserfc.errors import ExpiredTokenError, InvalidClaimError, JoseError
from joserfc.jwk import ECKey

from voiceforge.errors import ExpiredCredential, MalformedCredential, NotYetValid, WrongAudience

ALGORITHM = "ES256"
_CURVE = "P-256"
_TYPE = "at+jwt"
_LONGEST = 4096
_BEGINNINGS = ("iat", "nbf")


@dataclass(frozen=True, slots=True)
class TokenRules:
    """leeway_s: so far may clocks of our own machines differ."""

    issuer: str
    audience: str
    leeway_s: int = 5


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says. Times are Unix seconds."""

    user_id: str
    session_id: str
    issued_at: int
    not_before: int
    expires_at: int


class PrivateKey:
    """Signs. Made with `new` or from what `pem` gave."""

    def __init__(self, key: ECKey) -> None:
        self._key = key

    @classmethod
    def new(cls, kid: str) -> PrivateKey:
        return cls(ECKey.generate_key(_CURVE, {"kid": kid, "use": "sig", "alg": ALGORITHM}, private=True))

    @classmethod
    def from_pem(cls, pem: bytes, kid: str) -> PrivateKey:
        return cls(ECKey.import_key(pem, {"kid": kid, "use": "sig", "alg": ALGORITHM}))

    def pem(self) -> bytes:
        return self._key.as_pem(private=True)

    def public(self) -> dict[str, Any]:
        """As a JWK."""
        return dict(self._key.as_dict(private=False))

    def signed(self, claims: Claims, rules: TokenRules) -> str:
        header = {"alg": ALGORITHM, "kid": self._key.kid, "typ": _TYPE}
        content = {
            "iss": rules.issuer,
            "aud": rules.audience,
            "sub": claims.user_id,
            "sid": claims.session_id,
            "iat": claims.issued_at,
            "nbf": claims.not_before,
            "exp": claims.expires_at,
        }
        return jwt.encode(header, content, self._key, algorithms=[ALGORITHM])


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Believes what its private half signed."""

    kid: str
    _key: ECKey = field(repr=False)

    @classmethod
    def of(cls, jwk: Mapping[str, Any], kid: str) -> PublicKey:
        return cls(kid, ECKey.import_key({**jwk, "kid": kid}))

    def read(self, token: str, rules: TokenRules, now: float) -> Claims:
        """
        Raises:
            MalformedCredential: it is not this key's, or says less than it has to.
            ExpiredCredential, NotYetValid, WrongAudience
        """
        registry = jwt.JWTClaimsRegistry(
            now=int(now),
            leeway=rules.leeway_s,
            iss={"essential": True, "value": rules.issuer},
            aud={"essential": True, "value": rules.audience},
            exp={"essential": True},
            nbf={"essential": True},
            iat={"essential": True},
        )
        try:
            content = jwt.decode(token, self._key, algorithms=[ALGORITHM]).claims
            registry.validate(content)
        except ExpiredTokenError:
            raise ExpiredCredential("the token has expired") from None
        except InvalidClaimError as error:
            if error.claim == "aud":
                raise WrongAudience("the token is for another server") from None
            if error.claim in _BEGINNINGS and isinstance(content[error.claim], int | float):
                raise NotYetValid("the token is not valid yet") from None
            raise MalformedCredential(f"the token's {error.claim} is not what it has to be") from None
        except (JoseError, ValueError, TypeError, RecursionError):
            raise MalformedCredential("the token's signature does not fit, or it is broken") from None
        return _claims_of(content)


def key_id(token: str) -> str:
    """Which key a token says it is signed with; nothing about it is believed yet.

    Raises:
        MalformedCredential: it is no token, or none signed in the way that we take.
    """
    if len(token) > _LONGEST or not token.isascii():
        raise MalformedCredential("this is no token")
    try:
        header = jws.extract_compact(token.encode()).headers()
        algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ")
    except (JoseError, ValueError, TypeError, AttributeError, RecursionError):
        raise MalformedCredential("this is no token") from None
    if algorithm != ALGORITHM:
        raise MalformedCredential(f"the token's algorithm is not {ALGORITHM}")
    if kind != _TYPE:
        raise MalformedCredential("this is not an access token")
    if not isinstance(kid, str):
        raise MalformedCredential("the token does not say its key")
    return kid


def _claims_of(content: Mapping[str, Any]) -> Claims:
    user_id, session_id = content.get("sub"), content.get("sid")
    if not isinstance(user_id, str) or not isinstance(session_id, str):
        raise MalformedCredential("the token does not say whose it is")
    return Claims(user_id, session_id, content["iat"], content["nbf"], content["exp"])
