"""Chromium, and people who use the page with it."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, ViewportSize, async_playwright, expect

from tests.browser.person import Person

FLAGS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
WITHIN_MS = 15_000
"""So long a condition may take to come true: the server shares two cores with two browsers' worth of pages."""
WINDOW: ViewportSize = {"width": 1120, "height": 760}

expect.set_options(timeout=WITHIN_MS)

Arrive = Callable[[str], Awaitable[Person]]


def _chromium() -> str | None:
    named = os.environ.get("FASTSOCK_TEST_CHROMIUM")
    if named:
        return named
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    return next((path for path in found if path), None)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """One Chromium for all tests, or a skip where there is none."""
    path = _chromium()
    if path is None:
        pytest.skip(
            "no Chromium: none of chromium, chromium-browser, google-chrome is on the PATH, and "
            "FASTSOCK_TEST_CHROMIUM names none"
        )
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        await chromium.close()


@pytest_asyncio.fixture(loop_scope="session")
async def arrive(browser: Browser, request: pytest.FixtureRequest, artifacts: Path) -> AsyncIterator[Arrive]:
    """Opens the page for a new person, whose name begins with this one; at the end nobody's console holds an error.

    The server is asked for here and not among the arguments, so that it does not start where there is no browser.
    """
    server_url: str = request.getfixturevalue("server_url")
    pictures = artifacts / "browser"
    pictures.mkdir(parents=True, exist_ok=True)
    people: list[Person] = []

    async def arrive(name: str) -> Person:
        context = await browser.new_context(base_url=server_url, viewport=WINDOW, locale="en-GB")
        page = await context.new_page()
        unique = f"{name} {uuid.uuid4().hex[:8]}"
        person = Person(page, unique, f"{unique.replace(' ', '.').lower()}@example.com", pictures)
        people.append(person)
        await page.goto("/")
        return person

    yield arrive
    for person in people:
        await person.page.context.close()
    troubles = [f"{person.name}: {trouble}" for person in people for trouble in person.troubles]
    assert troubles == []
