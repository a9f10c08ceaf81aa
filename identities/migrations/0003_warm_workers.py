"""Whether a bot's process stays after an answer, and how many are started ahead."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('identities', '0002_memory'),
    ]

    operations = [
        migrations.AddField(
            model_name='identity',
            name='prewarmed',
            field=models.PositiveSmallIntegerField(default=0, help_text='processes kept ready for first turns, in each worker that it is busy in (some 280 MB each)'),
        ),
        migrations.AddField(
            model_name='identity',
            name='warm',
            field=models.BooleanField(default=True, help_text='its process stays for the next turn of a session'),
        ),
    ]
