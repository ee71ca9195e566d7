"""What a person does on the page, in the words of its labels: what a screen reader could not find, a test cannot."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.async_api import ConsoleMessage, Error, Locator, Page, expect

PASSWORD = "correct horse battery"


class Person:
    """One window. ``troubles`` are the errors that its console and its scripts have shown; ``email`` is made up."""

    def __init__(self, page: Page, name: str, email: str, pictures: Path) -> None:
        self.page = page
        self.name = name
        self.email = email
        self.troubles: list[str] = []
        self._pictures = pictures
        page.on("console", self._heard)
        page.on("pageerror", self._failed)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.troubles.append(f"{message.type}: {message.text} ({message.location.get('url')})")

    def _failed(self, error: Error) -> None:
        self.troubles.append(f"uncaught: {error.message}")

    async def picture(self, name: str) -> None:
        """Keep a screenshot for people to look at."""
        await self.page.screenshot(path=self._pictures / f"{name}.png")

    # --- coming and going ----------------------------------------------------------------------------------------

    async def sign_up(self) -> None:
        await self.page.get_by_role("button", name="Create an account").click()
        await self.page.get_by_label("Your name").fill(self.name)
        await self.page.get_by_label("Email").fill(self.email)
        await self.page.get_by_label("Password").fill(PASSWORD)
        await self.page.get_by_role("button", name="Create account", exact=True).click()
        await self.is_connected()

    async def sign_in(self, password: str = PASSWORD) -> None:
        await self.page.get_by_label("Email").fill(self.email)
        await self.page.get_by_label("Password").fill(password)
        await self.page.get_by_role("button", name="Sign in", exact=True).click()

    async def is_connected(self) -> None:
        await expect(self.page.locator("#link")).to_have_text("Connected")

    # --- conversations -------------------------------------------------------------------------------------------

    def entry(self, title: str) -> Locator:
        """The line of a room or a person in the list."""
        lines = self.page.get_by_role("navigation").get_by_role("link")
        return lines.filter(has=self.page.get_by_text(title, exact=True))

    def badge(self, title: str) -> Locator:
        return self.entry(title).locator(".badge")

    async def create_room(self, title: str, *members: str) -> None:
        await self.page.get_by_role("button", name="New room").click()
        dialog = self.page.get_by_role("dialog", name="New room")
        await dialog.get_by_label("Name", exact=True).fill(title)
        for member in members:
            await dialog.get_by_role("checkbox", name=member).check()
        await dialog.get_by_role("button", name="Create room").click()
        await self.is_in(title)

    async def open(self, title: str) -> None:
        await self.entry(title).click()
        await self.is_in(title)

    async def is_in(self, title: str) -> None:
        await expect(self.page.locator("#conversation-title")).to_have_text(title)

    # --- messages ------------------------------------------------------------------------------------------------

    @property
    def box(self) -> Locator:
        return self.page.get_by_role("textbox", name="Message", exact=True)

    def message(self, text: str) -> Locator:
        return self.page.locator(".message").filter(has=self.page.get_by_text(text, exact=True))

    async def write(self, text: str) -> None:
        """Type and press Enter, whatever becomes of it."""
        await self.box.fill(text)
        await self.box.press("Enter")

    async def say(self, text: str) -> None:
        """Write, and see that the server has it."""
        await self.write(text)
        await expect(self.message(text)).to_contain_text(re.compile("Sent$"))

    async def sees(self, *texts: str) -> None:
        """The conversation consists of exactly these messages, in this order."""
        await expect(self.page.locator(".message .text")).to_have_text([*texts])

    async def act(self, text: str, action: str) -> None:
        """Press "Edit" or "Delete" of one's own message."""
        message = self.message(text)
        await message.hover()
        await message.get_by_role("button", name=action).click()
