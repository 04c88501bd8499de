"""Start the Chromium of this machine for tests of pages, or skip them where there is none."""

import shutil
from pathlib import Path
from typing import Any

import pytest

OPTIONS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium() -> str:
    """Return the path of Chromium; skip the test where there is none."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium on this machine")
    return program


def open_chromium(folder: Path, width: int = 1280) -> Any:
    """Start a driven Chromium with an empty profile and its downloads in ``folder``, as a phone where it is narrow."""
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options, driver = ChromeOptions(), shutil.which("chromedriver")
    options.binary_location = chromium()
    if driver is None:
        pytest.skip("no chromedriver on this machine")
    for option in (*OPTIONS, f"--user-data-dir={folder / 'profile'}", f"--window-size={width},900"):
        options.add_argument(option)
    options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
    if width < 500:  # windows of a desktop become no narrower
        screen = {"width": width, "height": 740, "pixelRatio": 2.0, "touch": True}
        options.add_experimental_option("mobileEmulation", {"deviceMetrics": screen})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    return Chrome(options=options, service=Service(driver))
