"""The one page object: what a person does and sees, in words; selectors and waiting live here only.

Every wait is for a state of the page. `Heatmap` is read from what the map says of itself in its data
attributes, which its drawing code writes after it has drawn.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass

from playwright.sync_api import Locator, Page, expect

from server import LOAD_SECONDS
from wire import Wire

QUESTION = "Tell me about Paris."
REPLY_SECONDS = 180


@dataclass(frozen=True)
class Heatmap:
    """What the map has drawn."""

    columns: int
    layers: int
    tokens: int
    metric: str
    revisions: list[tuple[int, int]]
    """Where another revision came into force: (revision, position of the first row computed with it)."""


@dataclass(frozen=True)
class Cell:
    """What the tooltip or the spoken sentence says of one cell."""

    position: int
    layer: int
    value: float
    unit: str


@dataclass(frozen=True)
class Saved:
    """A file that the page gave to the browser."""

    name: str
    data: bytes


class SteersightPage:
    """The page, with one visitor in front of it."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.wire = Wire(page)
        at = page.get_by_test_id
        self.engine_state = at("engine-state")
        self.connection_state = at("connection-state")
        self.model = at("model")
        self.written_by = at("written-by")
        self.theme_toggle = at("theme-toggle")
        self.prompt = at("prompt-input")
        self.send = at("send")
        self.stop_button = at("stop")
        self.new_chat_button = at("new-chat")
        self.regenerate_button = at("regenerate")
        self.error = at("error-banner")
        self.questions = at("message-user")
        self.replies = at("message-assistant")
        self.reply = self.replies.last
        self.ending = at("ending").last
        self.note = at("turn-note").last
        self.writer = at("writer").last
        self.notice = at("notice-banner")
        self.metric_picker = at("metric-picker")
        self.legend = at("legend")
        self.map = at("heatmap")
        self.map_area = page.get_by_role("application")
        self.tooltip = at("heatmap-tooltip")
        self.spoken = at("heatmap-sentence")
        self.drawn = at("tooltip-drawn")
        self.unwatched = at("heatmap-unwatched")
        self.watch_next_button = at("watch-next")
        self.from_cache = at("from-cache")
        self.compute_button = at("compute-cached")
        self.as_written = at("as-written")
        self.reread_button = at("reread")
        self.reset_all = at("reset-all")
        self.share = at("share")
        self.linked = at("notice-banner")
        self.breaking = at("breaking")
        self.asides = at("aside")
        self.new_slider_button = at("new-slider")
        self.new_slider_dialog = at("new-slider-dialog")
        self.build_stage = at("build-stage")
        self.build_line = at("build-line")
        self.build_result = at("build-result")
        self.import_button = at("import")
        self.import_dialog = at("import-dialog")
        self.card = at("vector-card")
        self.recording = at("recording-banner")
        self.recording_title = at("recording-title")
        self.back_to_live = at("back-to-live")
        self.drop_area = at("drop-area")

    # -------------------------------------------------------------- arriving

    def open(self) -> None:
        """Go to the page."""
        self.page.goto(self.url)

    def wait_until_live(self) -> None:
        """The page is connected to the server."""
        expect(self.connection_state).to_have_attribute("data-state", "live")

    def wait_until_ready(self) -> None:
        """The engine takes questions."""
        expect(self.engine_state).to_have_attribute("data-state", "ready", timeout=LOAD_SECONDS * 1000)

    def come_back(self, event: str) -> None:
        """What the browser tells a page: "online", or "visibilitychange" when it is seen again."""
        target = "document" if event == "visibilitychange" else "window"
        self.page.evaluate(f"{target}.dispatchEvent(new Event('{event}'))")

    def connect_now(self) -> None:
        """Do not wait for the page's own next try."""
        self.page.get_by_role("button", name="Try now").click()

    def look(self, scheme: str, width: int) -> None:
        """See the page in another theme of the system's and another width of the window, as it stands."""
        self.page.emulate_media(color_scheme=scheme)
        self.page.set_viewport_size({"width": width, "height": 900})
        expect(self.page.locator("html")).to_have_attribute("data-theme", scheme)

    def choose_model(self, model: str) -> str:
        """Choose another model in its dialog; returns what is said before it is changed."""
        self.page.get_by_role("button", name="Change the model").click()
        self.page.get_by_role("button", name=f"Serve {model}").click()
        said = self.page.get_by_test_id("model-ends")
        expect(said).to_be_visible()
        return said.inner_text()

    def change_model(self, model: str) -> str:
        """The same, and change it. The engine is loading afterwards."""
        said = self.choose_model(model)
        self.page.get_by_test_id("model-change").click()
        expect(self.page.get_by_test_id("model-dialog")).to_have_count(0)
        return said

    # -------------------------------------------------------------- talking

    def set(self, **settings: float | str) -> None:
        """Change settings by their names on the wire, such as `temperature=0`."""
        panel = self.page.get_by_test_id("settings-panel")
        self.page.get_by_test_id("settings").click()
        for name, value in settings.items():
            self.page.get_by_test_id(f"setting-{name}").fill(str(value))
        self.page.get_by_test_id("settings").click()
        expect(panel).to_be_hidden()

    def choose_adapter(self, name: str) -> None:
        """Have the next reply written with a LoRA adapter; "" is the base model."""
        self.page.get_by_test_id("settings").click()
        self.page.get_by_test_id("setting-adapter").select_option(name)
        self.page.get_by_test_id("settings").click()
        expect(self.page.get_by_test_id("settings-panel")).to_be_hidden()

    def be_greedy(self, tokens: int = 24) -> None:
        """The likeliest token always, so that replies can be compared."""
        self.set(temperature=0, max_tokens=tokens)

    def ask(self, text: str = QUESTION) -> None:
        """Type a question and send it; the reply has begun to be waited for when this returns."""
        asked = self.questions.count()
        self.prompt.fill(text)
        expect(self.send).to_be_enabled()
        self.prompt.press("Enter")
        expect(self.questions).to_have_count(asked + 1)

    def answer_to(self, text: str = QUESTION) -> str:
        """Ask and wait for the whole reply."""
        self.ask(text)
        return self.wait_for_reply()

    def wait_for_reply(self) -> str:
        """The last reply has ended and the map has drawn what came with it. Returns its text."""
        self._wait("status === 'done'")
        return self.reply_text()

    def wait_while_writing(self, tokens: int = 1) -> None:
        """The last reply has at least so many tokens and is not at its end."""
        self._wait(f"status === 'done' || tokens >= {tokens}")
        assert self.reply.get_attribute("data-status") == "streaming", (
            f"The reply ended before {tokens} tokens were seen while it was being written."
        )

    def stop(self) -> None:
        """End the reply that is being written. It must not have come to its own end before."""
        self.stop_button.click()
        self._wait("status === 'done'")
        expect(self.ending).to_have_text("Stopped")

    def watch_in_another_tab(self) -> SteersightPage:
        """Open the reply that is shown in a second tab, as its link does."""
        with self.page.expect_popup() as opened:
            self.page.get_by_test_id("watch-tab").click()
        tab = SteersightPage(opened.value, self.url)
        tab.wait_until_live()
        return tab

    def reload(self) -> None:
        """Load the page anew; it is connected again when this returns."""
        self.page.reload()
        self.wait_until_live()

    def new_chat(self) -> None:
        """Begin anew."""
        self.new_chat_button.click()
        expect(self.questions).to_have_count(0)

    def regenerate(self) -> str:
        """Have the last reply written again."""
        before = self.reply.get_attribute("data-run")
        self.regenerate_button.click()
        expect(self.reply).not_to_have_attribute("data-run", before or "")
        return self.wait_for_reply()

    def reply_tokens(self) -> list[str]:
        """The last reply, token by token, special tokens left out."""
        return self.reply.locator(".token").all_text_contents()

    def reply_text(self) -> str:
        """The last reply."""
        return "".join(self.reply_tokens())

    def token_count(self) -> int:
        """Tokens of the last reply so far."""
        return self.reply.locator(".token").count()

    def token(self, index: int) -> Locator:
        """One token of the last reply."""
        return self.reply.locator(".token").nth(index)

    def position_of(self, index: int) -> int:
        """Position in prompt and reply of one token of the last reply."""
        return int(self.token(index).get_attribute("data-position") or -1)

    def tell_template(self, name: str, value: str) -> None:
        """Choose what the chat template is told, by the words of the list."""
        self.page.get_by_test_id("settings").click()
        self.page.get_by_test_id(f"setting-template-{name}").select_option(value)
        self.page.get_by_test_id("settings").click()
        expect(self.page.get_by_test_id("settings-panel")).to_be_hidden()

    # -------------------------------------------------------------- reading

    def fold(self) -> Locator:
        """The last reply's thought, which can be opened and closed."""
        return self.reply.get_by_test_id("thought")

    def thought(self) -> str:
        """What the last reply's thought says, open or closed, without its marks."""
        tokens = self.fold().locator(".token:not(.put-away)")
        return "".join(tokens.all_text_contents()).strip()

    def read_answer(self) -> str:
        """What is seen of the last reply, with its thought closed."""
        expect(self.fold()).not_to_have_attribute("open", "")
        return self.reply.locator(".reply-text > .passage").inner_text().strip()

    def passages(self) -> list[str]:
        """The parts of the last reply that are laid out one by one."""
        return self.reply.locator(".passage").all_text_contents()

    def wait_for_passages(self, count: int) -> None:
        """The last reply has so many passages and is not at its end."""
        self._wait(f"status === 'done' || passages >= {count}")
        assert self.reply.get_attribute("data-status") == "streaming", (
            f"The reply ended before it had {count} passages: {self.reply_text()!r}"
        )

    def select_tokens(self, first: int, last: int) -> None:
        """Select from one token of the last reply to another, both included."""
        self.reply.evaluate(
            """(reply, [first, last]) => {
                const tokens = reply.querySelectorAll(".token");
                const { firstChild } = tokens[first];
                const { lastChild } = tokens[last];
                getSelection().setBaseAndExtent(firstChild, 0, lastChild, lastChild.length);
            }""",
            [first, last],
        )

    def selected(self) -> str:
        """The text of the selection, as the browser gives it."""
        text: str = self.page.evaluate("getSelection().toString()")
        return text

    def copied(self) -> str:
        """What comes out where the selection is copied and pasted as text."""
        self.page.context.grant_permissions(["clipboard-read"])
        self.page.keyboard.press("ControlOrMeta+c")
        text: str = self.page.evaluate("navigator.clipboard.readText()")
        return text

    def found(self, text: str) -> bool:
        """Whether a search in the page finds a text."""
        self.page.evaluate("getSelection().empty()")
        found: bool = self.page.evaluate("text => window.find(text, true)", text)
        return found

    def rewrite_tokens(self, texts: Sequence[str]) -> None:
        """Put other words into the last reply, in turn; line breaks stay where they are."""
        self.reply.evaluate(
            """(reply, texts) => {
                for (const [index, token] of reply.querySelectorAll(".token").entries()) {
                    const breaks = token.textContent.replace(/[^\\n]/g, "");
                    token.textContent = texts[index % texts.length] + breaks;
                }
            }""",
            list(texts),
        )

    def places_of_tokens(self, *, undivided: bool = False) -> list[list[float]]:
        """Left, top, right and bottom of the last reply and of each of its tokens in each line, in pixels.

        Boxes of a token that touch are one: a browser divides a line's text as it likes.

        Args:
            undivided: as it would be if the reply were one block.
        """
        places: list[list[float]] = self.reply.locator(".reply").evaluate(
            """(reply, undivided) => {
                const passages = undivided ? [...reply.querySelectorAll(".passage")] : [];
                for (const { style } of passages) [style.display, style.unicodeBidi] = ["inline", "normal"];
                const corner = reply.getBoundingClientRect();
                const near = (one, other) => Math.abs(one - other) < 0.1;
                const place = ({ left, top, right, bottom }) => [
                    left - corner.left, top - corner.top, right - corner.left, bottom - corner.top,
                ];
                const places = [place(corner)];
                for (const token of reply.querySelectorAll(".token")) {
                    let last;
                    for (const [left, top, right, bottom] of [...token.getClientRects()].map(place)) {
                        if (last?.[1] === top && (near(last[2], left) || near(last[0], right))) {
                            [last[0], last[2]] = [Math.min(last[0], left), Math.max(last[2], right)];
                        } else {
                            last = [left, top, right, bottom];
                            places.push(last);
                        }
                    }
                }
                for (const { style } of passages) [style.display, style.unicodeBidi] = ["", ""];
                return places;
            }""",
            undivided,
        )
        return places

    # -------------------------------------------------------------- watching

    def heatmap(self) -> Heatmap:
        """What the map shows now."""
        data: dict[str, str] = self.map.evaluate("node => ({...node.dataset})")
        marks = [mark.split("@") for mark in data["revisions"].split(",") if mark]
        return Heatmap(
            columns=int(data["columns"]),
            layers=int(data["layers"]),
            tokens=int(data["tokens"]),
            metric=data["metric"],
            revisions=[(int(revision), int(position)) for revision, position in marks],
        )

    def wait_for_columns(self, more_than: int) -> int:
        """The map has grown while the reply is being written. Returns its columns."""
        self._wait(f"columns > {more_than} || status === 'done'")
        heatmap = self.heatmap()
        assert heatmap.columns > more_than, "The reply ended before the map grew."
        return heatmap.columns

    def wait_for_whole_map(self) -> Heatmap:
        """Every row has been drawn: one for each token but the last."""
        self._wait("status === 'done' && map.tokens > 1 && columns === Number(map.tokens) - 1")
        return self.heatmap()

    def picture_of_map(self) -> str:
        """What is on the map's canvas, as a data address."""
        picture: str = self.map.locator("canvas").first.evaluate("canvas => canvas.toDataURL()")
        return picture

    def colours_on_map(self) -> int:
        """How many different colours are on the map's canvas."""
        count: int = self.map.locator("canvas").first.evaluate(
            """canvas => {
                const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
                return new Set(new Uint32Array(data.buffer)).size;
            }"""
        )
        return count

    def pick_metric(self, metric: str) -> None:
        """Show another metric in the map."""
        self.metric_picker.select_option(metric)
        expect(self.map).to_have_attribute("data-metric", metric)

    def watch(self, *families: str, stride: str | None = None, stay: bool = False) -> None:
        """Have the next reply watched with more families of metrics; leave the panel open with `stay`."""
        self.page.get_by_test_id("watch").click()
        for family in families:
            self.page.get_by_test_id(f"watch-{family}").check()
        if stride is not None:
            self.page.get_by_test_id("watch-stride").select_option(stride)
        if not stay:
            self.page.get_by_test_id("watch").click()
            expect(self.page.get_by_test_id("watch-panel")).to_be_hidden()

    def guesses(self) -> list[tuple[str, str]]:
        """What the logit lens names at the pointed cell: ("written" or "", text), the likeliest first."""
        items = self.page.get_by_test_id("tooltip-guesses").locator("li").all()
        return [(item.get_attribute("class") or "", item.locator(".guess").inner_text()) for item in items]

    def hover_map(self, across: float, up: float) -> None:
        """Hold the pointer over the map, in shares of its width and height."""
        self.map.scroll_into_view_if_needed()
        box = self.map.bounding_box()
        assert box is not None
        self.page.mouse.move(box["x"] + across * box["width"], box["y"] + (1 - up) * box["height"])
        expect(self.tooltip).to_contain_text("layer")

    def point_at_map(self, across: float = 0.5, up: float = 0.5) -> Cell:
        """Hold the pointer over the map, and read the tooltip."""
        self.hover_map(across, up)
        fields = self._tooltip()
        (metric,) = set(fields) - {"token", "layer", "revision"}
        value, unit = _number(fields[metric])
        return Cell(int(fields["token"].split()[0]), int(fields["layer"]), value, unit)

    def point_at_last_layer(self, across: float) -> Cell:
        """Hold the pointer over the top row of cells, which stands under a band of 18 pixels."""
        self.map.scroll_into_view_if_needed()
        box = self.map.bounding_box()
        assert box is not None
        cell = self.point_at_map(across, 1 - 20 / box["height"])
        assert cell.layer == self.wire.layers() - 1
        return cell

    def walk_map(self, *keys: str) -> Cell:
        """Move the map's cursor with keys and read what is spoken of the cell."""
        self.map_area.focus()
        for key in keys:
            self.map_area.press(key)
        # The page takes what was pressed into its next frame; before that an earlier key's cell is spoken of.
        self.page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        expect(self.spoken).to_have_text(re.compile(r"layer \d+: .*\d"))
        text = self.spoken.inner_text()
        found = re.search(
            r"^Token (\d+) .*, layer (\d+): (\D+) ([-\d.,]+(?: M)? ?\w*), revision \d+\.$", text
        )
        assert found is not None, f"No cell is spoken of in {text!r}."
        value, unit = _number(found[4])
        return Cell(int(found[1]), int(found[2]), value, unit)

    def _tooltip(self) -> dict[str, str]:
        names = self.tooltip.locator("dt").all_inner_texts()
        return dict(zip(names, self.tooltip.locator("dd").all_inner_texts(), strict=True))

    # -------------------------------------------------------------- steering

    def slider(self, vector: str) -> Locator:
        """The slider of a vector."""
        return self.page.get_by_test_id(f"slider-{vector}")

    def strength(self, vector: str) -> Locator:
        """The number beside the slider."""
        return self.page.get_by_test_id(f"slider-number-{vector}")

    def status(self, vector: str) -> Locator:
        """What the page says of the slider's value: sent, in force, for the next reply."""
        return self.page.get_by_test_id(f"slider-status-{vector}")

    def steer(self, vector: str, strength: float) -> None:
        """Pull a slider."""
        self.slider(vector).fill(str(strength))
        expect(self.strength(vector)).to_have_value(f"{strength:g}")

    def wait_until_in_force(self, vector: str) -> int:
        """The page says from which token on the slider's value acts. Returns the token's position."""
        status = self.status(vector)
        expect(status).to_have_attribute("data-state", "in-force")
        found = re.search(r"in force at token (\d+)", status.inner_text())
        assert found is not None
        return int(found[1])

    def act(self, vector: str, **how: float | str) -> None:
        """Say how a vector acts: operator, scope, first, layers ("own", "one", "range"), from, to, lo, hi.

        Given in the order in which a person would: fields appear with what they belong to.
        """
        toggle = self.page.get_by_test_id(f"how-toggle-{vector}")
        toggle.click()
        for name, value in how.items():
            field = self.page.get_by_test_id(f"{name.rstrip('_')}-{vector}")
            if field.evaluate("node => node.tagName") == "SELECT":
                field.select_option(str(value))
            else:
                field.fill(str(value))
        toggle.click()
        expect(self.page.get_by_test_id(f"how-{vector}")).to_have_count(0)

    def how(self, vector: str) -> Locator:
        """How a vector acts, in words, beside its name."""
        return self.page.get_by_test_id(f"how-toggle-{vector}")

    def projection(self, vector: str) -> Locator:
        """The stream's projection on a vector at the newest token."""
        return self.page.get_by_test_id(f"projection-after-{vector}")

    def warning(self, vector: str) -> Locator:
        """That a strength is breaking the reply."""
        return self.page.get_by_test_id(f"breaking-{vector}")

    def left_behind(self, vector: str) -> Locator:
        """What a slider back at 0 says of the tokens that were written under it."""
        return self.page.get_by_test_id(f"left-behind-{vector}")

    def write_on(self, vector: str) -> None:
        """Have the reply written on from here, as the sliders stand now."""
        before = self.reply.get_attribute("data-run") or ""
        self.page.get_by_test_id(f"write-on-{vector}").click()
        expect(self.reply).not_to_have_attribute("data-run", re.compile(f"^({before}|)$"))

    def command(self, text: str) -> str:
        """Type a command into the message box. Returns the page's answer."""
        said = self.asides.count()
        self.prompt.fill(text)
        self.prompt.press("Enter")
        expect(self.asides).to_have_count(said + 1)
        return self.asides.last.locator("p").last.inner_text()

    def link(self) -> str:
        """The address that carries the sliders as they are now."""
        link = self.share.get_attribute("data-link")
        assert link
        return link

    # -------------------------------------------------------------- vectors of one's own

    def build(self, name: str, more: str, less: str) -> None:
        """Ask for a new slider from two system prompts; the build has begun when this returns."""
        self.new_slider_button.click()
        self.page.get_by_test_id("new-slider-name").fill(name)
        self.page.get_by_test_id("new-slider-more").fill(more)
        self.page.get_by_test_id("new-slider-less").fill(less)
        self.page.get_by_test_id("new-slider-go").click()
        expect(self.page.get_by_test_id("building")).to_be_visible()

    def wait_for_build(self, seconds: float) -> None:
        """The build is over and its dialog shows what it found."""
        expect(self.build_result).to_be_visible(timeout=seconds * 1000)

    def use_it(self) -> None:
        """Take what was built, at the strength that it suggests."""
        self.page.get_by_test_id("build-use").click()
        expect(self.new_slider_dialog).to_have_count(0)

    def choose_file(self, name: str, data: bytes, label: str = "") -> None:
        """Open the import and give it a file."""
        self.import_button.click()
        self.page.get_by_test_id("import-label").fill(label)
        file = {"name": name, "mimeType": "application/octet-stream", "buffer": data}
        self.page.get_by_test_id("import-file").set_input_files(files=[file])

    def report(self) -> str:
        """What the file holds, as the server says."""
        report = self.page.get_by_test_id("import-report")
        expect(report).to_be_visible()
        return report.inner_text()

    def add_import(self) -> None:
        """Add what the file holds."""
        self.page.get_by_test_id("import-add").click()
        expect(self.page.get_by_test_id("import-added")).to_be_visible()
        self.page.keyboard.press("Escape")
        expect(self.import_dialog).to_have_count(0)

    def open_card(self, vector: str) -> None:
        """Open a vector's card; where it comes from has been read."""
        self.page.get_by_test_id(f"card-toggle-{vector}").click()
        expect(self.card).to_contain_text("KiB")

    def download(self) -> bytes:
        """The file of the vector whose card is open."""
        with self.page.expect_download() as started:
            self.page.get_by_test_id("vector-download").click()
        return started.value.path().read_bytes()

    def delete(self, vector: str) -> None:
        """Delete the vector whose card is open."""
        self.page.get_by_test_id("vector-delete").click()
        self.page.get_by_test_id("vector-delete-sure").click()
        expect(self.slider(vector)).to_have_count(0)

    # -------------------------------------------------------------- recordings

    def save(self, what: str) -> Saved:
        """Save the "conversation", what is "shown" on the map, or the conversation as a "page"."""
        self.page.get_by_test_id("save-recording").click()
        with self.page.expect_download() as started:
            self.page.get_by_test_id(f"save-{what}").click()
        return Saved(started.value.suggested_filename, started.value.path().read_bytes())

    def choose_recording(self, file: Saved) -> None:
        """Choose a file with the Open button."""
        chosen = {"name": file.name, "mimeType": "application/octet-stream", "buffer": file.data}
        self.page.get_by_test_id("recording-file").set_input_files(files=[chosen])

    def drop(self, file: Saved) -> None:
        """Drag a file over the page and drop it."""
        carried = self.page.evaluate_handle(
            """([name, text]) => {
                const bytes = Uint8Array.from(atob(text), one => one.charCodeAt(0));
                const carried = new DataTransfer();
                carried.items.add(new File([bytes], name));
                return carried;
            }""",
            [file.name, base64.b64encode(file.data).decode()],
        )
        self.page.dispatch_event("main", "dragover", {"dataTransfer": carried})
        expect(self.drop_area).to_be_visible()
        self.page.dispatch_event("main", "drop", {"dataTransfer": carried})
        expect(self.drop_area).to_have_count(0)

    def wait_for_recording(self) -> Heatmap:
        """A recording is shown, and the map of its last reply is drawn."""
        expect(self.recording).to_be_visible()
        return self.wait_for_whole_map()

    def show_in_map(self, index: int) -> None:
        """Show an earlier reply in the map."""
        reply = self.replies.nth(index)
        reply.get_by_role("button", name="Show in heatmap").click()
        expect(reply).to_have_class(re.compile("shown"))

    # -------------------------------------------------------------- looks

    def sideways_overflow(self) -> int:
        """By how many pixels the page scrolls sideways; 0 or less is right."""
        overflow: int = self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        return overflow

    def focused(self) -> str:
        """The test id of what has the keyboard."""
        name: str = self.page.evaluate("document.activeElement?.dataset.testid ?? ''")
        return name

    def tab_to(self, name: str, most: int = 40) -> None:
        """Press Tab until the element with this test id has the keyboard."""
        for _ in range(most):
            self.page.keyboard.press("Tab")
            if self.focused() == name:
                return
        raise AssertionError(f"{most} tabs did not reach {name}.")

    # -------------------------------------------------------------- waiting

    def _wait(self, expression: str) -> None:
        """Wait until a JavaScript expression over the map's and the last reply's state is true."""
        self.page.wait_for_function(
            f"""() => {{
                const map = document.querySelector('[data-testid=heatmap]')?.dataset ?? {{}};
                const columns = Number(map.columns ?? 0);
                const reply = [...document.querySelectorAll('[data-testid=message-assistant]')].at(-1);
                const tokens = reply ? reply.querySelectorAll('.token').length : 0;
                const passages = reply ? reply.querySelectorAll('.passage').length : 0;
                const status = reply?.dataset.status;
                return {expression};
            }}""",
            timeout=REPLY_SECONDS * 1000,
        )


def _number(text: str) -> tuple[float, str]:
    """The number and unit of what the page shows, such as "1,234 L2" or "3.20 M L2"."""
    found = re.fullmatch(r"(-?[\d.,]+(?:e-\d+)?)( M)?(?: (\w+))?", text.strip())
    assert found is not None, f"{text!r} is no number."
    value = float(found[1].replace(",", "")) * (1e6 if found[2] else 1)
    return value, found[3] or ""
