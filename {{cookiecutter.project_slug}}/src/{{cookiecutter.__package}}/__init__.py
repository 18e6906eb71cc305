from importlib.metadata import version

SERVICE = "{{ cookiecutter.project_slug }}"
__version__ = version(SERVICE)
