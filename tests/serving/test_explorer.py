"""The page in a real browser, before a real server of a tiny pair."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from support.browser import BASELINE, chromium, served, tiny_pair

from nla_jax.evaluation.claims.confidence import Model

api = pytest.importorskip("playwright.sync_api", reason="the page's tests need playwright")
pytest.importorskip("uvicorn", reason="the page's tests need the extra `serve`")
if chromium() is None:
  pytest.skip("the page's tests need chromium", allow_module_level=True)

PAGE = Path(__file__).parents[2] / "nla_jax" / "serving" / "explorer"
CHAT = [
  {"role": "user", "content": "Which river?\nSay it 🦊"},
  {"role": "assistant", "content": "The Seine."},
]
# What a hostile document may hold: an end of a script, markup, and an override that turns the rest of a line round.
HOSTILE = (
  "</script><script>window.hit=1</script><img src=x onerror='window.hit=1'>\u202egnp.exe\u2066"
)

WATCH_PARTIAL_TEXTS = """() => {
  window.seen = [];
  const look = () => {
    const found = document.querySelector(".explanation.pending p:not(.missing)");
    if (found) window.seen.push(found.textContent);
  };
  new MutationObserver(look).observe(document.body, { childList: true, subtree: true });
}"""


@pytest.fixture(scope="module")
def nla(tmp_path_factory):
  return tiny_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def address(nla):
  with served(nla, trust=Model((), np.zeros(0), np.ones(0), np.zeros(0), 0.0)) as found:
    yield found


@pytest.fixture(scope="module")
def browser():
  with api.sync_playwright() as playwright:
    found = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
    yield found
    found.close()


@pytest.fixture
def open_page(browser, address):
  """A function that opens the page; at the end no script has failed and no request has left the server."""
  contexts, complaints = [], []

  def make(where=address, width=1280, **options):
    context = browser.new_context(viewport={"width": width, "height": 860}, **options)
    context.set_default_timeout(120_000)
    contexts.append(context)
    page = context.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if "Policy" in line.text else None)
    page.on(
      "request",
      lambda one: (
        None
        if one.url.startswith((address, "data:", "blob:", where))
        else complaints.append(one.url)
      ),
    )
    page.goto(where)
    page.wait_for_selector("#subject b")
    return page

  yield make
  for context in contexts:
    context.close()
  assert complaints == []


def paste(page, what):
  """Pastes a text, or messages as JSON."""
  page.click("#paste")
  page.fill("#pasted", what if isinstance(what, str) else json.dumps(what))
  page.click("#paste_use")
  page.wait_for_selector("#tokens .chip:not(.template)")


def chip(page, text, nth=0):
  """The chip that shows a text, among those that are shown."""
  return page.locator("#tokens .chip:visible", has_text=re.compile(f"^{re.escape(text)}$")).nth(nth)


def chosen(page) -> str:
  return "".join(page.locator("#tokens .chip[aria-selected=true]").all_text_contents())


def explain(page, samples=1):
  """Has the chosen tokens explained. Some of the random AV's answers hold no explanation; of four most hold one."""
  page.fill("#samples", str(samples))
  page.dispatch_event("#samples", "change")
  page.click("#explain")
  settle(page)
  assert page.is_hidden("#notice"), page.inner_text("#notice")
  assert page.locator("#tokens .chip.read").count() > 0


def read_reply(page, samples=1):
  """Explains the reply and goes to its token that is rebuilt best."""
  page.click("[data-choose=assistant]")
  explain(page, samples)
  labels = page.locator("#all .meter").all_inner_texts()
  fves = [fve(label) if "no FVE" not in label else -99 for label in labels]
  page.locator("#all button").nth(fves.index(max(fves))).click()
  settle(page)


def fve(label) -> float:
  return float(label.split()[1].replace("−", "-"))


def settle(page):
  """Waits until nothing runs and what was asked for is drawn."""
  page.wait_for_timeout(100)
  page.wait_for_selector("body:not([data-busy])")
  page.wait_for_timeout(100)


def test_the_page_names_the_pair_the_baseline_and_that_explanations_confabulate(open_page):
  page = open_page()
  assert "confabulate" in page.inner_text(".caution")
  assert f"{BASELINE:.3f}" in page.inner_text("#subject")
  assert "always the mean" in page.inner_text("#legend")


def test_nothing_stands_inline_so_that_a_strict_policy_holds():
  page = (PAGE / "index.html").read_text()
  assert "default-src 'none'; script-src 'self'; style-src 'self'" in page
  assert not re.search(r"\son\w+=|\sstyle=|<style|javascript:", page)
  assert re.findall(r"<script[^>]*>(.*?)</script>", page) == [""]
  for path in PAGE.glob("*.js"):
    assert not re.search(
      r"innerHTML\s*=|insertAdjacentHTML|document\.write|\beval\(", path.read_text()
    ), path.name


def test_a_pasted_conversation_shows_roles_glyphs_and_characters_of_several_tokens(open_page):
  page = open_page()
  paste(page, CHAT)
  assert page.locator(".message:not(.template) .role span").all_inner_texts() == [
    "user",
    "assistant",
  ]
  assert page.locator(".words").first.inner_text().count("⏎") == 1
  assert chip(page, "🦊").count() == 1
  assert page.locator(".chip.template:visible").count() == 0
  page.check("#template")
  assert "<|im_start|>" in page.locator(".chip.template:visible").all_inner_texts()


def test_a_plain_text_and_other_forms_of_conversations_are_taken(open_page):
  page = open_page()
  paste(page, "just words")
  assert page.inner_text("#tokens") == "just words"
  paste(
    page,
    json.dumps(
      {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]}
    ),
  )
  assert page.locator(".message:not(.template) .role span").all_inner_texts() == [
    "user",
    "assistant",
  ]


def test_the_model_answers_and_what_it_says_joins_the_conversation(open_page):
  page = open_page()
  page.fill("#words", "Hello")
  page.press("#words", "Enter")
  page.wait_for_selector(".message[aria-label=assistant] .chip:visible")
  settle(page)
  assert page.locator(".message:not(.template)").count() == 2
  assert page.inner_text("#send") == "Go on"


def test_an_edited_message_is_read_anew(open_page):
  page = open_page()
  paste(page, CHAT)
  page.hover(".message >> nth=0")
  page.click(".message .edit >> nth=0")
  page.fill(".words textarea", "Which lake?")
  page.click("text=Save and end here")
  page.wait_for_selector(".words textarea", state="detached")
  page.wait_for_selector("#tokens .chip:not(.template)")
  assert page.locator(".words:visible").all_inner_texts() == ["Which lake?"]


def test_tokens_are_chosen_by_click_drag_and_shift(open_page):
  page = open_page()
  paste(page, CHAT)
  chip(page, "W").click()
  assert chosen(page) == "W"
  chip(page, "c").click(modifiers=["Shift"])
  assert chosen(page) == "Whic"
  chip(page, "r").click(modifiers=["Control"])
  assert chosen(page) == "Whicr"

  start, end = chip(page, "S", 1).bounding_box(), chip(page, "n").bounding_box()
  page.mouse.move(start["x"] + 2, start["y"] + 8)
  page.mouse.down()
  page.mouse.move(end["x"] + 2, end["y"] + 8, steps=8)
  page.mouse.up()
  assert chosen(page) == "Sein"
  page.click("[data-choose=assistant]")
  assert chosen(page) == "The Seine."
  page.click("[data-choose=none]")
  assert chosen(page) == "" and page.is_disabled("#explain")


def test_explanations_stream_in_with_their_fve_and_low_ones_say_so(open_page):
  page = open_page()
  page.evaluate(WATCH_PARTIAL_TEXTS)
  paste(page, CHAT)
  read_reply(page, samples=3)

  assert page.locator("#focus .sample").count() == 3
  fves = [fve(label) for label in page.locator("#focus .meter .label").all_inner_texts()]
  assert fves == sorted(fves, reverse=True)
  low = sum(1 - one >= 0.5 for one in fves)
  assert page.locator("#focus .lownote").count() == low > 0  # random weights rebuild nothing
  assert page.locator("#focus .missing").count() == 3 - len(fves)
  assert "all" in page.inner_text("#focus .agreement")
  assert page.evaluate("window.seen.length") > 0


def test_search_goes_through_the_explanations_that_have_the_words(open_page):
  page = open_page()
  paste(page, CHAT)
  read_reply(page)
  texts = [text.lower() for text in page.locator("#all .start").all_text_contents()]
  # Random weights write random bytes: some two characters of the longest.
  query = re.search(r"[!-.:-~]{1,2}", max(texts, key=len)).group()
  hits = sum(query in text for text in texts)
  chip(page, "W").click()
  page.keyboard.press("/")
  page.keyboard.type(query)
  assert page.inner_text("#matches").endswith(f"of {hits}")
  page.keyboard.press("Enter")
  assert page.inner_text("#matches") == f"1 of {hits}"
  assert page.locator("#tokens .chip.found").count() == hits
  page.wait_for_selector("#focus mark.hit")  # drawn when the page is next idle
  page.keyboard.press("Shift+Enter")
  assert page.inner_text("#matches") == f"{hits} of {hits}"


def test_two_positions_stand_side_by_side(open_page):
  page = open_page()
  paste(page, CHAT)
  read_reply(page)
  chip(page, "S", 1).click()
  page.click("text=Compare")
  chip(page, "n").click()
  settle(page)
  assert page.locator("#focus .pair .position").count() == 2
  assert page.locator("#focus .context mark").all_text_contents() == ["S", "n"]

  # What the one has and the other lacks is explained by the server, and stays with this pair.
  with page.expect_request("**/compare") as asked:
    page.click("text=Explain the difference")
  settle(page)
  first, second = asked.value.post_data_json["positions"]
  shown = page.inner_text("#focus .difference")
  assert f"position {first} less position {second}" in shown and "norm" in shown
  assert page.locator("text=Explain the difference").count() == 0


def test_claims_stand_beside_their_explanation_the_likeliest_first(open_page):
  """The server's own weighing has its tests; here its answer is given, a hostile claim among it."""
  claims = [
    {"text": HOSTILE, "field": "Ends", "level": "detail", "confidence": 0.07},
    {"text": "rivers", "field": "About", "level": "theme", "confidence": 0.83},
  ]
  page = open_page()
  paste(page, CHAT)
  read_reply(page)
  page.route("**/weigh", lambda route: route.fulfill(json={"position": 0, "claims": claims}))
  with page.expect_request("**/weigh") as asked:
    page.click("text=Weigh the claims")
  settle(page)
  assert set(asked.value.post_data_json) >= {"messages", "position", "description"}
  shown = page.locator("#focus .claims li").all_inner_texts()
  assert "83 %" in shown[0] and "rivers" in shown[0]
  assert "7 %" in shown[1] and "</script>" in shown[1] and "⟨U+202E⟩" in shown[1]
  assert page.evaluate("window.hit") is None
  assert page.locator("text=Weigh the claims").count() == 0


def steer(page):
  """Steers by an edit, at the token of the reply that is rebuilt best."""
  read_reply(page)
  page.click("text=Edit and steer")
  page.fill(".steerform textarea", "other words than those")
  page.fill(".steerform [aria-label=Strengths]", "0.5 1")
  page.fill(".steerform input[type=number]", "4")
  page.click(".steerform .primary")
  settle(page)
  assert page.is_hidden("#notice"), page.inner_text("#notice")


def test_an_edited_explanation_steers_beside_the_unsteered_model_and_three_controls(open_page):
  page = open_page()
  paste(page, CHAT)
  steer(page)
  names = page.locator("#steered .block b").all_inner_texts()
  assert names[:2] == ["unsteered", "steered by the edit"] and len(names) == 5
  assert page.locator("#steered svg polyline").count() == 4
  page.click(".strengths button >> nth=0")
  assert page.get_attribute(".strengths button >> nth=0", "aria-pressed") == "true"


def test_a_link_reopens_the_same_view_without_reading_again(open_page):
  page = open_page()
  paste(page, CHAT)
  steer(page)
  page.wait_for_timeout(600)
  shown = [page.inner_text("#focus"), page.inner_text("#tokens"), page.inner_text("#steered")]

  asked = []
  again = page.context.new_page()
  again.on(
    "request",
    lambda one: asked.append(one.url.rsplit("/", 1)[-1]) if one.method == "POST" else None,
  )
  again.goto(page.url)
  again.wait_for_selector("#steered .block")
  settle(again)
  assert [
    again.inner_text("#focus"),
    again.inner_text("#tokens"),
    again.inner_text("#steered"),
  ] == shown
  assert asked == ["tokenize"]


def test_a_broken_link_says_so(open_page, address):
  page = open_page(address + "#v1.nonsense")
  page.wait_for_selector("#notice.bad")
  assert "link" in page.inner_text("#notice")


def test_the_saved_page_is_one_file_without_scripts_that_opens_offline(
  open_page, browser, tmp_path
):
  page = open_page()
  paste(page, [{"role": "user", "content": HOSTILE}, *CHAT[1:]])
  steer(page)
  said = page.inner_text("#focus .explanation")
  with page.expect_download() as download:
    page.click("#save")
  path = tmp_path / "saved.html"
  download.value.save_as(path)

  text = path.read_text()
  assert "<script" not in text and "<img" not in text and "\u202e" not in text
  with browser.new_context(java_script_enabled=False, offline=True) as context:
    saved = context.new_page()
    asked = []
    saved.on("request", lambda one: asked.append(one.url))
    saved.goto(path.as_uri())
    assert asked == [path.as_uri()]
    assert said in saved.inner_text("#detail")
    assert "confabulate" in saved.inner_text(".caution")
    assert saved.locator(".steering .block").count() == 5
    assert saved.locator("button").count() == 0


def test_a_hostile_text_stays_a_text(open_page):
  page = open_page()
  paste(page, [{"role": "user", "content": HOSTILE + "x" * 20_000}])
  shown = page.text_content("#tokens .words >> nth=0")
  assert page.evaluate("window.hit") is None
  assert page.locator("#tokens img, #tokens script").count() == 0
  assert page.evaluate("document.documentElement.scrollWidth") <= 1280
  assert (
    "</script>" in page.locator(".message[aria-label=user]").text_content()
    and "\u202e" not in shown
  )
  assert "⟨U+202E⟩" in page.text_content("#tokens")


def test_the_keyboard_alone_is_enough(open_page):
  page = open_page()
  page.focus("#paste")
  page.keyboard.press("Enter")
  page.keyboard.type(json.dumps(CHAT))
  page.keyboard.press("Tab")
  page.keyboard.press("Tab")
  page.keyboard.press("Enter")
  page.wait_for_selector("#tokens .chip:not(.template)")
  page.keyboard.press("Escape")
  page.keyboard.press("t")
  page.keyboard.press("Home")
  page.keyboard.press("Shift+ArrowRight")
  page.keyboard.press("Shift+ArrowRight")
  assert chosen(page) == "Whi"
  page.keyboard.press("ArrowDown")
  page.keyboard.press("Space")
  assert len(chosen(page)) == 4
  page.keyboard.press("Enter")
  settle(page)
  read = page.locator("#tokens .chip.read")
  assert read.count() > 0
  page.keyboard.press("Home")
  for _ in range(4):
    page.keyboard.press("]")
    if "read" in page.locator("#tokens .chip.focus").get_attribute("class").split():
      break
  page.keyboard.press("s")
  assert page.evaluate("document.activeElement.tagName") == "TEXTAREA"
  page.keyboard.press("Escape")
  page.keyboard.press("Escape")
  assert chosen(page) == ""


@pytest.mark.parametrize("width", (400, 1280))
def test_nothing_is_wider_than_the_screen(open_page, width):
  page = open_page(width=width)
  paste(page, [*CHAT, {"role": "user", "content": "y" * 400}])
  assert page.evaluate("document.documentElement.scrollWidth") <= width
  steer(page)
  assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_light_and_dark_follow_the_system(open_page):
  papers = [
    open_page(color_scheme=scheme).evaluate("getComputedStyle(document.body).backgroundColor")
    for scheme in ("light", "dark")
  ]
  brightness = [sum(map(int, re.findall(r"\d+", paper)[:3])) for paper in papers]
  assert brightness[0] > 600 and brightness[1] < 150


def test_a_refusal_stands_on_the_page_in_the_servers_words(open_page):
  page = open_page()
  page.click("#paste")
  page.fill("#pasted", "z" * 70_000)
  page.click("#paste_use")
  page.wait_for_selector("#notice.bad")
  assert "70,000 characters" in page.inner_text("#notice")


def test_a_server_with_a_secret_asks_for_it(nla, browser):
  with served(nla, secret="a long secret") as where, browser.new_context() as context:
    page = context.new_page()
    page.goto(where)
    page.wait_for_selector("#secret_dialog[open]")
    page.fill("#secret", "wrong one")
    page.click("#secret_dialog button")
    page.wait_for_selector("#secret_dialog[open]")
    page.fill("#secret", "a long secret")
    page.click("#secret_dialog button")
    page.wait_for_selector("#subject b")
    paste(page, CHAT)
