"""People, bots and the texts that make a bot."""

from __future__ import annotations

import hashlib
import json
from typing import Any, ClassVar

import pgtrigger
from django.contrib.auth.models import AbstractUser, UserManager
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils.crypto import salted_hmac

from fleet.kernel import secrets
from fleet.kernel.transitions import steps_trigger
from identities import validators
from identities.permissions import MATRIX, Permission, Role
from identities.ports import Connection
from identities.states import IDENTITY, Effort, IdentityState, NetworkPolicy, TextKind, ToolDecision, Transport
from identities.triggers import NO_RING_OF_MANAGERS, only_sensible_numbers

# Slugs and skill names become folders, so the database itself keeps them to letters, digits and dashes.
FOLDER_NAME = r"^[a-z0-9][a-z0-9-]*$"
_SERVER_PLACE = {"table": "identities_mcpserver", "column": "secrets_sealed"}


def default_chain() -> list[str]:
    """Return the provider chain of a new bot."""
    return ["claude"]


class PersonManager(UserManager["Person"]):
    """Makes `createsuperuser` and allauth create people whose rights come from the matrix."""

    use_in_migrations = False

    def create_user(
        self, username: str, email: str | None = None, password: str | None = None, **fields: Any
    ) -> Person:
        """Create a person; without a password they sign in by link only."""
        person = self.model(username=username, email=self.normalize_email(email), **fields)
        person.set_password(password)
        person.save(using=self._db)
        return person

    def create_superuser(
        self, username: str, email: str | None = None, password: str | None = None, **fields: Any
    ) -> Person:
        """Create an administrator (Django's own command calls this)."""
        return self.create_user(username, email, password, roles=[Role.ADMIN], **fields)


class Person(AbstractUser):
    """Somebody who signs in or talks to bots. Rights come from `roles` through the matrix and from nowhere else."""

    roles = ArrayField(models.CharField(max_length=20, choices=Role.choices), default=list, blank=True)
    timezone = models.CharField(max_length=64, default="UTC")
    # Django's own roads to power do not exist here: one matrix, one answer.
    groups = None  # type: ignore[assignment]
    user_permissions = None  # type: ignore[assignment]

    objects: ClassVar[PersonManager] = PersonManager()

    class Meta:
        verbose_name_plural = "people"
        constraints = [
            models.CheckConstraint(condition=Q(roles__contained_by=Role.values), name="person_has_known_roles"),
        ]

    @property
    def is_staff(self) -> bool:  # type: ignore[override]  # a field in AbstractUser, here an answer of the matrix
        """Return whether Django admin opens its door."""
        return Permission.FLEET_VIEW in self.permissions

    @property
    def is_superuser(self) -> bool:  # type: ignore[override]  # as is_staff
        """Return whether Django admin lets this person repair records."""
        return Permission.RECORDS_EDIT in self.permissions

    def has_perm(self, perm: str, obj: object = None) -> bool:
        """Return whether Django's permission `perm` is granted: to those who may repair records, and to nobody else."""
        return self.is_superuser

    def has_module_perms(self, app_label: str) -> bool:
        """Return whether admin shows this app's section."""
        return self.is_staff

    @property
    def permissions(self) -> frozenset[Permission]:
        """Return everything this person may do; nothing when the account is switched off."""
        if not self.is_active:
            return frozenset()
        return frozenset().union(*(MATRIX[Role(role)] for role in self.roles))


class Identity(models.Model):
    """A bot: a member of staff with a role, a soul, skills, tools, limits and a workspace."""

    slug = models.SlugField(max_length=40, unique=True)
    name = models.CharField(max_length=80)
    title = models.CharField(max_length=120, blank=True)
    department = models.CharField(max_length=80, blank=True)
    manager = models.ForeignKey("self", on_delete=models.PROTECT, null=True, blank=True, related_name="reports")
    owner = models.ForeignKey(Person, on_delete=models.PROTECT, null=True, blank=True, related_name="bots")
    state = models.CharField(max_length=12, choices=IdentityState.choices, default=IdentityState.DRAFT)
    provider_chain = ArrayField(
        models.CharField(max_length=20), default=default_chain, validators=[validators.validate_chain]
    )
    model = models.CharField(max_length=80, default="claude-haiku-4-5")
    effort = models.CharField(max_length=10, choices=Effort.choices, blank=True)
    max_turns = models.PositiveIntegerField(default=30, validators=[validators.Sensible("max_turns")])
    max_minutes = models.PositiveIntegerField(default=15, validators=[validators.Sensible("max_minutes")])
    max_tool_calls = models.PositiveIntegerField(
        default=100, validators=[validators.Sensible("max_tool_calls")], help_text="of one turn; 0: it uses no tools"
    )
    max_megabytes = models.PositiveIntegerField(
        default=2048,
        validators=[validators.Sensible("max_megabytes")],
        help_text="memory of one turn with everything it starts, at least 512; 0: no limit",
    )
    concurrency = models.PositiveIntegerField(default=4, validators=[validators.Sensible("concurrency")])
    warm = models.BooleanField(default=True, help_text="its process stays for the next turn of a session")
    prewarmed = models.PositiveSmallIntegerField(
        default=0,
        validators=[validators.Sensible("prewarmed")],
        help_text="processes kept ready for first turns, in each worker that it is busy in (some 280 MB each)",
    )
    timezone = models.CharField(max_length=64, default="UTC")
    network = models.CharField(max_length=10, choices=NetworkPolicy.choices, default=NetworkPolicy.PROVIDER)
    allowed_hosts = ArrayField(
        models.CharField(max_length=255, validators=[validators.validate_host]),
        default=list,
        blank=True,
        validators=[validators.validate_hosts],
        help_text="for the network policy “allowlist”: api.example.com, *.example.com, 10.0.0.5:8443",
    )
    sandbox_waiver = models.TextField(blank=True, help_text="why its CLI may run without a sandbox; empty: it may not")
    mcp_version = models.PositiveIntegerField(default=0, editable=False, help_text="rises with its MCP servers")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        verbose_name_plural = "identities"
        ordering = ["pk"]
        constraints = [
            models.CheckConstraint(condition=Q(slug__regex=FOLDER_NAME), name="identity_slug_is_a_folder_name"),
            models.CheckConstraint(condition=~Q(manager=F("id")), name="identity_not_its_own_manager"),
            models.CheckConstraint(condition=Q(concurrency__gte=1), name="identity_concurrency_positive"),
            models.CheckConstraint(condition=Q(network__in=NetworkPolicy.values), name="identity_has_known_network"),
            models.CheckConstraint(
                condition=~Q(network=NetworkPolicy.ALLOWLIST) | Q(allowed_hosts__len__gte=1),
                name="identity_allowlist_lists_somebody",
            ),
        ]
        triggers = [
            steps_trigger(IDENTITY),
            pgtrigger.Trigger(
                name="manager_tree",
                when=pgtrigger.Before,
                operation=pgtrigger.Insert | pgtrigger.UpdateOf("manager_id"),
                condition=pgtrigger.Q(new__manager__isnull=False),
                func=pgtrigger.Func(NO_RING_OF_MANAGERS),
            ),
            pgtrigger.Trigger(
                name="sensible_numbers",
                when=pgtrigger.Before,
                operation=pgtrigger.Insert | pgtrigger.UpdateOf(*validators.BOUNDS),
                func=only_sensible_numbers(),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.slug})"

    def clean(self) -> None:
        """Refuse a provider and a time zone that this installation does not have, and an allowlist of nobody."""
        validators.validate_names(provider_chain=self.provider_chain or (), timezone=self.timezone)
        validators.validate_network(network=self.network, allowed_hosts=self.allowed_hosts or ())


class TextVersion(models.Model):
    """One immutable wording of a soul or skill. `identity` is empty for a skill shared by the fleet."""

    identity = models.ForeignKey(Identity, on_delete=models.PROTECT, null=True, blank=True, related_name="versions")
    kind = models.CharField(max_length=10, choices=TextKind.choices)
    name = models.SlugField(max_length=60, help_text="soul, or the skill's folder name")
    content = models.TextField()
    sha256 = models.CharField(max_length=64, editable=False)
    parent = models.ForeignKey("self", on_delete=models.PROTECT, null=True, blank=True, related_name="children")
    author = models.CharField(max_length=150)
    origin = models.CharField(max_length=80, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["identity", "kind", "name", "sha256"], nulls_distinct=False, name="text_version_once"
            ),
            models.CheckConstraint(condition=Q(name__regex=FOLDER_NAME), name="text_name_is_a_folder_name"),
        ]
        triggers = [pgtrigger.Protect(name="immutable", operation=pgtrigger.Update | pgtrigger.Delete)]

    def __str__(self) -> str:
        return f"{self.kind} {self.name} {self.sha256[:8]}"

    @staticmethod
    def hash_of(content: str) -> str:
        """Return the SHA-256 (hex) of a wording."""
        return hashlib.sha256(content.encode()).hexdigest()


class TextPointer(models.Model):
    """Which version of a text is live for a bot. Moving it is how a bot changes and how it is changed back."""

    identity = models.ForeignKey(Identity, on_delete=models.CASCADE, related_name="pointers")
    kind = models.CharField(max_length=10, choices=TextKind.choices)
    name = models.SlugField(max_length=60)
    live = models.ForeignKey(TextVersion, on_delete=models.PROTECT, related_name="+")
    previous = models.ForeignKey(TextVersion, on_delete=models.PROTECT, null=True, blank=True, related_name="+")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["identity", "kind", "name"], name="one_pointer_per_text")]

    def __str__(self) -> str:
        return f"{self.identity.slug}: {self.kind} {self.name}"


class ToolGrant(models.Model):
    """Allow, ask or deny for a tool pattern such as `Read`, `Bash(git *)` or `mcp__crm__*`. No match means deny."""

    identity = models.ForeignKey(Identity, on_delete=models.CASCADE, related_name="grants")
    pattern = models.CharField(max_length=160)
    decision = models.CharField(max_length=6, choices=ToolDecision.choices)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["identity", "pattern"], name="one_grant_per_pattern")]

    def __str__(self) -> str:
        return f"{self.decision} {self.pattern}"


class McpServer(models.Model):
    """Tools from outside for one bot: a program or an address. Its secrets are variables of the program, or headers."""

    identity = models.ForeignKey(Identity, on_delete=models.CASCADE, related_name="mcp_servers")
    name = models.CharField(max_length=40, help_text="part of its tools' names, as crm is in mcp__crm__find")
    transport = models.CharField(max_length=6, choices=Transport.choices)
    command = ArrayField(models.CharField(max_length=500), default=list, blank=True)
    url = models.URLField(max_length=500, blank=True)
    settings = models.JSONField(default=dict, blank=True, help_text="variables or headers that are no secret")
    secret_names = ArrayField(models.CharField(max_length=80), default=list, blank=True)
    secrets_sealed = models.BinaryField(null=True, blank=True, editable=False)

    class Meta:
        verbose_name = "MCP server"
        constraints = [
            models.UniqueConstraint(fields=["identity", "name"], name="one_mcp_server_per_name"),
            models.CheckConstraint(condition=Q(name__regex=FOLDER_NAME), name="mcp_server_name_is_plain"),
            models.CheckConstraint(
                condition=Q(transport=Transport.STDIO, url="", command__len__gte=1)
                | (Q(transport__in=[Transport.HTTP, Transport.SSE], command__len=0) & ~Q(url="")),
                name="mcp_server_is_program_or_address",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.identity.slug}: {self.name}"

    @property
    def place(self) -> str:
        """Return what its secrets are sealed for."""
        return f"{self.identity.slug}/{self.name}"

    def keep_secrets(self, values: dict[str, str]) -> None:
        """Seal these values in place of those it has; the caller saves."""
        self.secret_names = sorted(values)
        self.secrets_sealed = secrets.seal(json.dumps(values), row=self.place, **_SERVER_PLACE) if values else None

    def connection(self) -> Connection:
        """Return it as a provider takes it, its secrets still sealed."""
        sealed = bytes(self.secrets_sealed or b"")
        return Connection(
            name=self.name,
            transport=str(self.transport),
            command=tuple(self.command),
            url=self.url,
            settings=tuple(sorted((str(name), str(text)) for name, text in self.settings.items())),
            secret_names=tuple(self.secret_names),
            sealed=sealed,
            place=tuple({**_SERVER_PLACE, "row": self.place}.items()),
        )


class ChatAccount(models.Model):
    """A person's account on a platform, known by its numeric or opaque id. Names are never trusted."""

    platform = models.CharField(max_length=20)
    external_id = models.CharField(max_length=120)
    person = models.ForeignKey(Person, on_delete=models.CASCADE, related_name="chat_accounts")
    paired_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["platform", "external_id"], name="one_person_per_account")]

    def __str__(self) -> str:
        return f"{self.platform}:{self.external_id} = {self.person}"


class PairingCode(models.Model):
    """A one-time code a signed-in person sends to a bot to prove that a chat account is theirs. A hash is kept."""

    person = models.ForeignKey(Person, on_delete=models.CASCADE, related_name="pairing_codes")
    code_hash = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"code of {self.person} until {self.expires_at:%H:%M}"

    @staticmethod
    def hash_of(code: str) -> str:
        """Return the keyed hash (hex) of a code as typed: case, spaces and dashes do not matter.

        Keyed, because eight characters could be tried out against a stolen table.
        """
        typed = "".join(code.split()).replace("-", "").upper()
        return salted_hmac("identities.pairing_code", typed, algorithm="sha256").hexdigest()


class PairingAttempt(models.Model):
    """A wrong code, counted per chat account so that codes cannot be guessed."""

    platform = models.CharField(max_length=20)
    external_id = models.CharField(max_length=120)
    at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        indexes = [models.Index(fields=["platform", "external_id", "at"], name="pairing_attempts")]

    def __str__(self) -> str:
        return f"{self.platform}:{self.external_id} at {self.at}"


class AccessToken(models.Model):
    """A person's or gateway's API token. The text is shown once; a hash is kept."""

    person = models.ForeignKey(Person, on_delete=models.CASCADE, related_name="tokens")
    name = models.CharField(max_length=80)
    prefix = models.CharField(max_length=12)
    token_hash = models.CharField(max_length=64, unique=True)
    gateway = models.BooleanField(default=False, help_text="may speak for paired senders of its gateway account")
    gateway_account = models.CharField(max_length=80, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=(Q(gateway=True) & ~Q(gateway_account="")) | Q(gateway=False, gateway_account=""),
                name="gateway_token_names_its_account",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"

    @staticmethod
    def hash_of(text: str) -> str:
        """Return the SHA-256 (hex) of a token's text, whatever the text is."""
        return hashlib.sha256(text.encode(errors="replace")).hexdigest()


class SignInLink(models.Model):
    """A one-time sign-in link, printed by `make run` and `manage.py signin_link`. Only its hash is kept."""

    person = models.ForeignKey(Person, on_delete=models.CASCADE, related_name="sign_in_links")
    token_hash = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"link for {self.person}"

    @staticmethod
    def hash_of(token: str) -> str:
        """Return the SHA-256 (hex) of a link's token, whatever the text is."""
        return hashlib.sha256(token.encode(errors="replace")).hexdigest()
