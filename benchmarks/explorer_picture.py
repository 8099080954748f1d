"""Takes the picture of the explorer, `docs/explorer.png`, of a server that runs.

  bash launch/explore.sh
  python benchmarks/explorer_picture.py --url=http://127.0.0.1:5009/ --out=docs/explorer.png

Asks a question, explains the beginning of the reply, and shows the token of it that is rebuilt best.
"""

import argparse
import shutil

from playwright.sync_api import Page, sync_playwright

WIDTH, HEIGHT = 1180, 900
_PATIENCE = 600_000  # milliseconds: a first request compiles


def main() -> None:
  """Opens the page, reads, and writes the picture."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--url", default="http://127.0.0.1:5009/")
  parser.add_argument("--out", default="docs/explorer.png")
  parser.add_argument(
    "--question", default="What is the capital of France, and what is it known for?"
  )
  parser.add_argument("--tokens", type=int, default=24, help="of the reply that are explained")
  parser.add_argument("--scheme", default="light", choices=("light", "dark"))
  options = parser.parse_args()

  with sync_playwright() as playwright:
    chromium = playwright.chromium.launch(
      executable_path=shutil.which("chromium"), args=["--no-sandbox"]
    )
    size = {"width": WIDTH, "height": HEIGHT}
    page = chromium.new_page(viewport=size, color_scheme=options.scheme)
    page.set_default_timeout(_PATIENCE)
    page.goto(options.url)
    read(page, options.question, options.tokens)
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=options.out)
    chromium.close()


def read(page: Page, question: str, tokens: int) -> None:
  """Has a question answered and the first tokens of the answer explained."""
  page.wait_for_selector("#subject b")
  page.fill("#words", question)
  page.press("#words", "Enter")
  page.wait_for_selector(".message[aria-label=assistant] .chip:visible")

  page.fill("#samples", "2")
  page.dispatch_event("#samples", "change")
  chips = page.locator(".message[aria-label=assistant] .chip:visible")
  chips.nth(0).click()
  chips.nth(min(chips.count(), tokens) - 1).click(modifiers=["Shift"])
  page.click("#explain")
  page.wait_for_timeout(500)
  page.wait_for_selector("body:not([data-busy])")

  # The best one stands for what the page can show; every other one is a click away.
  labels = page.locator("#all .meter").all_inner_texts()
  fves = [float(one.split()[1].replace("−", "-")) if "no FVE" not in one else -9 for one in labels]
  page.locator("#all button").nth(fves.index(max(fves))).click()
  page.wait_for_timeout(500)


if __name__ == "__main__":
  main()
