"""What the console's forms accept: the shape of the input only. Whether it may be done is decided by the actions."""

from __future__ import annotations

from typing import Any

from django import forms

STOP_WORD = "STOP"
WHOLE_FLEET = "*"  # no slug looks like this
MESSAGE_LIMIT = 16_000  # characters; at four bytes each they fit into the 64 kB that a message may have


class StopForm(forms.Form):
    """Order a stop: what, how hard, why; and the typed word when everything is to stop."""

    scope = forms.ChoiceField(label="What to stop")
    mode = forms.ChoiceField(
        label="How",
        choices=[
            ("stop", "Stop now: running processes are killed, nothing new starts"),
            ("drain", "Drain: running work finishes, nothing new starts"),
        ],
        initial="stop",
        widget=forms.RadioSelect,
    )
    reason = forms.CharField(
        label="Reason",
        max_length=200,
        help_text="Everybody who is refused meanwhile reads it, and the journal keeps it.",
    )
    word = forms.CharField(
        label=f"Type {STOP_WORD}",
        required=False,
        max_length=10,
        help_text="Only needed to stop the whole fleet.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "autocapitalize": "characters", "spellcheck": "false"}),
    )

    def __init__(self, *args: Any, bots: list[tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        scope = self.fields["scope"]
        assert isinstance(scope, forms.ChoiceField)  # noqa: S101 - tells the type checker which field this is
        scope.choices = (
            [(WHOLE_FLEET, "The whole fleet"), ("One bot", bots)] if bots else [(WHOLE_FLEET, "The whole fleet")]
        )

    def clean(self) -> dict[str, Any]:
        """Refuse to stop the whole fleet without its typed word."""
        data: dict[str, Any] = super().clean() or {}
        if data.get("scope") == WHOLE_FLEET and data.get("word", "").strip() != STOP_WORD:
            self.add_error("word", f"Type {STOP_WORD} in capitals to stop the whole fleet.")
        return data


class ResumeForm(forms.Form):
    """Lift a kill order."""

    reason = forms.CharField(label="Reason for resuming", max_length=200)


class MessageForm(forms.Form):
    """A message to a bot. `key` makes a repeated send harmless."""

    text = forms.CharField(
        max_length=MESSAGE_LIMIT,
        strip=False,
        error_messages={
            "required": "There is nothing to send yet.",
            "max_length": f"This is longer than {MESSAGE_LIMIT:,} characters. Send it in parts, or attach it as a file later.",
        },
    )
    key = forms.UUIDField()

    def clean_text(self) -> str:
        """Refuse a message of nothing but white space."""
        text: str = self.cleaned_data["text"].replace("\r\n", "\n")
        if not text.strip():
            raise forms.ValidationError("There is nothing to send yet.")
        return text


class NewChatForm(MessageForm):
    """The first message of a conversation. `place` names it, so that a repeated send opens no second one."""

    place = forms.UUIDField()


class GatewayTokenForm(forms.Form):
    """A bot's Telegram token: written here, never shown again."""

    bot = forms.SlugField(widget=forms.HiddenInput)
    token = forms.RegexField(
        r"^\d{5,}:[A-Za-z0-9_-]{20,}$",
        label="Telegram token",
        widget=forms.PasswordInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
        error_messages={"invalid": "This is not a Telegram token. BotFather gives them as 123456789:AA…"},
    )


class TokenForm(forms.Form):
    """A new personal API token."""

    name = forms.CharField(
        label="What it is for", max_length=80, help_text="For example: deploy script on the build server."
    )
