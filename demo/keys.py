"""The keys that the gallery's keyed protocols take; every other one is refused as the real APIs do."""

YANDEX_CLOUD_KEY = "demo-cloud-key"
YANDEX_CLOUD_FOLDER = "demo-folder"
NAVER_ID, NAVER_SECRET = "demo-naver-id", "demo-naver-secret"
OPENVERSE_ID, OPENVERSE_SECRET, OPENVERSE_TOKEN = "demo-openverse-id", "demo-openverse-secret", "demo-openverse-token"
