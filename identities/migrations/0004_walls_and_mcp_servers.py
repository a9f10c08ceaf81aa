"""Whom a bot's CLI reaches, whether it may run without a sandbox, and its MCP servers.

Bots that are there already reached everybody, and go on to; new ones reach their provider only.
"""

import django.contrib.postgres.fields
import django.core.validators
import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ("identities", "0003_warm_workers"),
    ]

    operations = [
        migrations.CreateModel(
            name='McpServer',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(help_text="part of its tools' names, as crm is in mcp__crm__find", max_length=40)),
                ('transport', models.CharField(choices=[('stdio', 'A program that is started'), ('http', 'An address (streamable HTTP)'), ('sse', 'An address (server-sent events)')], max_length=6)),
                ('command', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=500), blank=True, default=list, size=None)),
                ('url', models.URLField(blank=True, max_length=500)),
                ('settings', models.JSONField(blank=True, default=dict, help_text='variables or headers that are no secret')),
                ('secret_names', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=80), blank=True, default=list, size=None)),
                ('secrets_sealed', models.BinaryField(blank=True, null=True)),
            ],
            options={"verbose_name": "MCP server"},
        ),
        migrations.AddField(
            model_name='identity',
            name='allowed_hosts',
            field=django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=255, validators=[django.core.validators.RegexValidator('^(\\*\\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?\\Z|^\\[[0-9a-f:]+\\](:[0-9]{1,5})?\\Z', 'Write a host as api.example.com[:port].')]), blank=True, default=list, help_text='for the network policy “allowlist”: api.example.com, *.example.com, 10.0.0.5:8443', size=None),
        ),
        migrations.AddField(
            model_name='identity',
            name='mcp_version',
            field=models.PositiveIntegerField(default=0, editable=False, help_text='rises with its MCP servers'),
        ),
        migrations.AddField(
            model_name='identity',
            name='network',
            field=models.CharField(choices=[('none', 'Nobody, not even a provider (mock only)'), ('provider', 'Its provider only'), ('allowlist', 'Its provider and the listed hosts'), ('open', 'Everybody, as this machine does')], default='open', max_length=10),
        ),
        migrations.AlterField(
            model_name='identity',
            name='network',
            field=models.CharField(choices=[('none', 'Nobody, not even a provider (mock only)'), ('provider', 'Its provider only'), ('allowlist', 'Its provider and the listed hosts'), ('open', 'Everybody, as this machine does')], default='provider', max_length=10),
        ),
        migrations.AddField(
            model_name='identity',
            name='sandbox_waiver',
            field=models.TextField(blank=True, help_text='why its CLI may run without a sandbox; empty: it may not'),
        ),
        migrations.AddConstraint(
            model_name='identity',
            constraint=models.CheckConstraint(condition=models.Q(('network__in', ['none', 'provider', 'allowlist', 'open'])), name='identity_has_known_network'),
        ),
        migrations.AddField(
            model_name='mcpserver',
            name='identity',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='mcp_servers', to='identities.identity'),
        ),
        migrations.AddConstraint(
            model_name='mcpserver',
            constraint=models.UniqueConstraint(fields=('identity', 'name'), name='one_mcp_server_per_name'),
        ),
        migrations.AddConstraint(
            model_name='mcpserver',
            constraint=models.CheckConstraint(condition=models.Q(('name__regex', '^[a-z0-9][a-z0-9-]*$')), name='mcp_server_name_is_plain'),
        ),
        migrations.AddConstraint(
            model_name='mcpserver',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('command__len__gte', 1), ('transport', 'stdio'), ('url', '')), models.Q(('command__len', 0), ('transport__in', ['http', 'sse']), models.Q(('url', ''), _negated=True)), _connector='OR'), name='mcp_server_is_program_or_address'),
        ),
    ]
