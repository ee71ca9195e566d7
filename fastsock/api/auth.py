"""Sign up and log in."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.security import OAuth2PasswordRequestForm

from fastsock.api.dependencies import Served
from fastsock.api.errors import documented
from fastsock.db.users import UserRow
from fastsock.schemas import http

router = APIRouter(prefix="/auth", tags=["auth"])


@router.post(
    "/signup", response_model=http.User, responses=documented("email_taken", "weak_password", "bad_json", "overloaded")
)
async def sign_up(body: http.SignUp, services: Served) -> UserRow:
    """Make an account."""
    return await services.accounts.sign_up(body.email, body.password, body.full_name)


@router.post("/login/access-token", responses=documented("bad_credentials", "account_inactive", "overloaded"))
async def log_in(form: Annotated[OAuth2PasswordRequestForm, Depends()], services: Served) -> http.Token:
    """Get a token; `username` is the e-mail address."""
    token, expires_in = await services.accounts.log_in(form.username, form.password)
    return http.Token(access_token=token, expires_in=expires_in)
