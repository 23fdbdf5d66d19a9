"""A model at work on a text, as one offline HTML page to play with."""

from minitx.inspect.page.data import page_data as page_data
from minitx.inspect.page.page import Page as Page
from minitx.inspect.page.page import view as view
